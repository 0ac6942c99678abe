"""Personal data by patterns: e-mail, telephone, internet address, identity card, payment card.

Each pattern is narrow on purpose: a year, a price, a formula or a version number that is taken for a telephone number costs a
sound answer. What has a check digit has to pass it; what has a date has to be one.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date

from babeltune.data.cleaning.kinds import Outcome, Place, RowStep, dropped
from babeltune.data.cleaning.texts import rewritten
from babeltune.errors import ConfigError, nearest, problem
from babeltune.records import Conversation, Message
from babeltune.steps import PERSONAL, PersonalStep


def personal(step: PersonalStep, place: Place) -> RowStep:
    """The report counts what was found by kind. `ConfigError` for an unknown kind."""
    if unknown := [kind for kind in step.kinds if kind not in PERSONAL]:
        raise ConfigError(problem("personal.kinds", unknown[0], f"some of {', '.join(PERSONAL)}", nearest(unknown[0], PERSONAL)))
    place.report.update({kind: 0 for kind in PERSONAL if kind in step.kinds})

    def clean(row: Conversation) -> list[Outcome]:
        hits = [_hits_of(message, step.kinds) for message in row.messages]
        found = [hit.kind for some in hits for hit in some]
        if not found:
            return [row]
        for kind in found:
            place.report[kind] += 1
        what = ", ".join(kind for kind in PERSONAL if kind in found)
        if step.action == "mask":
            return [rewritten(row, lambda text: masked(text, step.kinds))]
        if step.action == "drop":
            return [dropped(row, "personal data", what)]
        return [_without_replies(row, [bool(some) for some in hits]) or dropped(row, "personal data", what)]

    return clean


@dataclass(frozen=True, slots=True)
class Hit:
    kind: str
    start: int
    end: int


def masked(text: str, kinds: Sequence[str] = PERSONAL) -> str:
    """Each hit as a word that names its kind.

    >>> masked("Viết cho lan@gmail.com nhé")
    'Viết cho <email> nhé'
    """
    parts, at = [], 0
    for hit in hits(text, kinds):
        parts += [text[at : hit.start], f"<{hit.kind}>"]
        at = hit.end
    return "".join([*parts, text[at:]])


def hits(text: str, kinds: Sequence[str] = PERSONAL) -> list[Hit]:
    """What is found, in its order in the text and without overlap; where two overlap the kind with the stricter check wins."""
    if not _WORTH.search(text):
        return []
    taken: list[Hit] = []
    for kind, pattern, is_real in _PATTERNS:
        if kind in kinds:
            for found in pattern.finditer(text):
                start, end = found.span()
                if is_real(found) and not any(start < hit.end and hit.start < end for hit in taken):
                    taken.append(Hit(kind, start, end))
    return sorted(taken, key=lambda hit: hit.start)


def _hits_of(message: Message, kinds: Sequence[str]) -> list[Hit]:
    return [hit for text in (message.text, message.input) if text for hit in hits(text, kinds)]


def _without_replies(row: Conversation, is_hit: list[bool]) -> Conversation | None:
    """Without the pairs of question and reply that are hit; None when no reply is left, or when the hit is in no pair."""
    head = [number for number, message in enumerate(row.messages) if message.role in ("system", "text")]
    if any(is_hit[number] for number in head):
        return None
    kept = [message for number, message in enumerate(row.messages) if number in head]
    for pair in _pairs(row.messages):
        if not any(is_hit[number] for number in pair):
            kept += [row.messages[number] for number in pair]
    if not any(message.role == "assistant" and message.text.strip() for message in kept):
        return None
    return replace(row, messages=tuple(kept))


def _pairs(messages: Sequence[Message]) -> Iterator[list[int]]:
    """Numbers of messages that belong together: a user's, and what follows until the user speaks again."""
    pair: list[int] = []
    for number, message in enumerate(messages):
        if message.role == "user" and pair:
            yield pair
            pair = []
        if message.role in ("user", "assistant"):
            pair.append(number)
    if pair:
        yield pair


_WORTH = re.compile(r"@|(?:\d[ .()-]{0,2}){8}|[0-9A-Fa-f]:[0-9A-Fa-f:]{6}|\d\.\d{1,3}\.", re.ASCII)
"""A text without any of these holds nothing; it is looked for first because most texts do not."""


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_EMAIL = re.compile(
    r"(?<![\w.+/@-])(?P<name>\w(?:[\w.+-]{0,62}[\w+-])?)@(?P<host>(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?P<top>[a-z]{2,18}))(?![\w@-])",
    re.ASCII | re.IGNORECASE,
)
_TOPS = _set(
    "com net org edu gov mil int info biz name pro asia cat jobs online site website xyz top club shop store app dev tech cloud "
    "email blog live life world today news media agency company group work link space fun vip icu wang ltd bank health care"
)
_EXAMPLES = re.compile(
    r"(?:.*\.)?(?:example|domain|test|yourdomain|mydomain|xxx)\.[a-z.]+|.*\.(?:example|test|invalid|localhost)", re.I
)
"""Hosts that documentation uses, RFC 2606 and what people write instead."""


def _is_email(found: re.Match[str]) -> bool:
    top = found["top"].lower()
    is_top = len(top) == 2 or top in _TOPS
    return (
        is_top and found["name"].lower() != "git" and not _EXAMPLES.fullmatch(found["host"]) and not _is_placeholder(found["name"])
    )


def _is_placeholder(name: str) -> bool:
    return set(name.lower()) <= {"x"} or name.lower() in (
        "user",
        "username",
        "your",
        "yourname",
        "your_email",
        "youremail",
        "your.email",
    )


_BEFORE = r"(?<![\w.,/\\#%&?^*-])(?<![$¥€£₫=+]\s)(?<![$¥€£₫])"
"""What a number stands after that is none of these: part of a word, a decimal, a path, a price, a sum."""
_UNITS = r"年|月|元|块|万|亿|美元|人民币|人次|公里|千米|米|吨|克|字节|đồng|VND|USD|km\b|kg\b|bytes?\b|years?\b"
_AFTER = rf"(?![\w/\\^*%]|[.,:-]\w|\s?(?:{_UNITS})|\s?[*^×÷+=]\s?\d)"


def _number(body: str) -> re.Pattern[str]:
    return re.compile(f"{_BEFORE}(?:{body}){_AFTER}", re.ASCII)


_CN_MOBILE = r"(?:\+86[ -]?|\(\+86\) ?|0086[ -]?|86-)?1[3-9]\d(?:\d{8}|[ -]\d{4}[ -]\d{4})"
_CN_LANDLINE = r"(?:\+86[ -]?)?(?:[(（]0(?:10|2\d|[3-9]\d\d)[)）] ?|0(?:10|2\d|[3-9]\d\d)[-—])[2-8]\d{6,7}(?:-\d{1,4})?"
_CN_ABROAD = r"\+86[ -](?:10|2\d|[3-9]\d\d)[ -][2-8]\d{2,3}[ -]?\d{4}"
_VN_MOBILE = (
    r"(?:0|\+84[ .-]?|\(\+84\) ?|0084|84-)[35789](?:\d{8}|\d{2}[ .-]\d{3}[ .-]\d{3}|\d[ .-]\d{3}[ .-]\d{4}"
    r"|\d{2}[ .-]\d{2}[ .-]\d{2}[ .-]\d{2}"
    r"|\d{2}[ .-]\d{6}|\d[ .-]\d{7}|\d{3}[ .-]\d{2}[ .-]\d{3})"
)
_VN_LANDLINE = r"(?:[(]02\d{1,2}[)] ?|02\d{1,2}[ .-]|\+84[ .-]?2\d{1,2}[ .-]?)\d{3,4}[ .-]?\d{4}"
_NANP = r"(?:\+?1[ .-]?)?(?:\([2-9]\d\d\) ?|[2-9]\d\d-)[2-9]\d\d-\d{4}"
_ABROAD = r"\+[1-9]\d{0,2}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,5}(?:[ .-]?\d{2,5}){1,4}"
_PHONE = _number("|".join((_CN_MOBILE, _CN_LANDLINE, _CN_ABROAD, _VN_MOBILE, _VN_LANDLINE, _NANP, _ABROAD)))
_TOLL_FREE = re.compile(r"1?8(?:00|33|44|55|66|77|88)\d{7}$")
"""North American numbers of companies and help lines."""


def _is_phone(found: re.Match[str]) -> bool:
    text = found[0]
    digits = _digits(text)
    if re.search(r"(\d)\1{6}", digits) or _TOLL_FREE.match(digits):
        return False
    if text.startswith("+"):
        return 10 <= len(digits) <= 15
    return True


_CARD = _number(r"\d{15,19}|\d{4}(?:([ -])\d{4})(?:\1\d{4}){2}(?:\1\d{1,3})?|\d{4}([ -])\d{6}\2\d{5}")
_ISSUERS = re.compile(r"4\d{15}|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|35\d{14}|6(?:011|4[4-9]\d|5\d\d)\d{12}|62\d{14,17}", re.ASCII)
"""Visa, Mastercard, American Express, JCB, Discover, UnionPay, each with its lengths."""


def _is_card(found: re.Match[str]) -> bool:
    digits = _digits(found[0])
    return bool(_ISSUERS.fullmatch(digits)) and not re.search(r"(\d)\1{7}", digits) and passes_luhn(digits)


def passes_luhn(digits: str) -> bool:
    """ISO/IEC 7812-1: every second digit from the right doubled, the digits' sum a multiple of ten."""
    doubled = (int(digit) * (1 + number % 2) for number, digit in enumerate(reversed(digits)))
    return sum(value // 10 + value % 10 for value in doubled) % 10 == 0


_ID_CARD = _number(r"[1-8]\d{16}[\dXx]|0\d{11}")
_CN_PROVINCES = _set("11 12 13 14 15 21 22 23 31 32 33 34 35 36 37 41 42 43 44 45 46 50 51 52 53 54 61 62 63 64 65 71 81 82 83")
_VN_PROVINCES = _set(
    "001 002 004 006 008 010 011 012 014 015 017 019 020 022 024 025 026 027 030 031 033 034 035 036 037 038 040 042 044 045 046 "
    "048 049 051 052 054 056 058 060 062 064 066 067 068 070 072 074 075 077 079 080 082 083 084 086 087 089 "
    "091 092 093 094 095 096"
)
_LAST_YEAR = 2030


def _is_id_card(found: re.Match[str]) -> bool:
    return is_cn_id_card(found[0]) if len(found[0]) == 18 else is_vn_id_card(found[0])


def is_cn_id_card(number: str) -> bool:
    """GB 11643-1999: a province, a date of birth, and a check digit by ISO 7064 MOD 11-2."""
    try:
        born = date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    check = "10X98765432"[sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(number[:17])) % 11]
    return number[:2] in _CN_PROVINCES and 1890 <= born.year <= _LAST_YEAR and number[17].upper() == check


def is_vn_id_card(number: str) -> bool:
    """Circular 59/2021/TT-BCA: three digits of a province, one of century and sex, two of the year of birth, six free ones."""
    century = 1900 + 100 * (int(number[3]) // 2)
    year = century + int(number[4:6])
    is_counting = number in "01234567890123456789"
    return (
        number[:3] in _VN_PROVINCES
        and 1900 <= year <= _LAST_YEAR
        and not set(number) <= {"0", "1"}
        and not is_counting
        and len(set(number[6:])) > 1
    )


_IP = re.compile(
    r"(?<![\w.:/-])(?<![vV]\s)(?P<four>(?:\d{1,3}\.){3}\d{1,3})(?![\w-]|\.\d)|(?<![\w:.])(?P<six>[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{4,34}[0-9A-Fa-f])(?![\w:])",
    re.ASCII,
)
_VERSION = re.compile(
    r"(?:\bv|version|release|版本|版|phiên bản|bản|build|chapter|section|第|章|节|chương|mục)\s*[:：]?\s*$", re.IGNORECASE
)
_CALLED_IP = re.compile(r"\bip|地址|address|địa chỉ|host|server|ping|服务器|máy chủ", re.IGNORECASE)
"""What is said before a short address; without it four short numbers are a section or sizes."""


def _is_ip(found: re.Match[str]) -> bool:
    """An address of the public internet: none of a private net, none for documentation, no version or section number."""
    try:
        address = ipaddress.ip_address(found[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        return address.is_global
    octets = found[0].split(".")
    before = found.string[max(0, found.start() - 20) : found.start()]
    is_small = len(_digits(found[0])) < 8 and not _CALLED_IP.search(before)
    return address.is_global and not is_small and len(set(octets)) > 1 and not _VERSION.search(before)


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


_PATTERNS: tuple[tuple[str, re.Pattern[str], Callable[[re.Match[str]], bool]], ...] = (
    ("email", _EMAIL, _is_email),
    ("id_card", _ID_CARD, _is_id_card),
    ("card", _CARD, _is_card),
    ("ip", _IP, _is_ip),
    ("phone", _PHONE, _is_phone),
)
"""From the strictest to the loosest."""
