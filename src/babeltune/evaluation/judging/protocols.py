"""What a judge is asked about a reply, and how its words are read. Text in, text and numbers out.

belle    one reply by its category, 0 to 1: `得分` and a number. Every such number outside of echoes must be the same; two different
         ones are no verdict. Where there is none, a first line of `0.8分` counts.
vicuna   two replies, 0 to 10 each (1 to 10 is asked; judges give a missing answer 0): the first line is two numbers and nothing
         else. For math, whose judge solves first, else a tuple on a line that speaks of scores, or lines of `Assistant 1: 8`; all
         that there are must agree. A tuple anywhere else may be a point of the plane.
impact   relevance and coherence, 1 to 5: the first number of the words, or the last, as the published code reads. Anything but a
         whole number from 1 to 5 is no verdict; the published code made it a 1.

A reply is data. It stands between marks made of a hash of what they enclose, which it therefore cannot hold. Where a judge repeats
the reply, the copy is taken out before its words are read: between the marks whatever it is, elsewhere from ECHO characters on.
What is shorter cannot be told from a verdict: repeated beside one, it leaves a belle judgement unparsable and never turns it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from babeltune.evaluation.judging import wording
from babeltune.evaluation.judging.wording import Words, repaired
from babeltune.records import Item

VERSIONS = {"belle": 1, "vicuna": 1, "impact": 1}
"""Raised by hand when a question's layout or the reading of an answer changes."""
PARTS = {"belle": ("",), "vicuna": ("given", "swapped"), "impact": ("relevance", "coherence")}
"""What is asked about each item: both orders of a pair, both rubrics of impact."""
SCALES = {"belle": 100.0, "vicuna": 10.0, "impact": 1.0}
"""What a judge's number is multiplied by: scores of belle and vicuna are of 100, of impact 1 to 5."""
ECHO = 8

_BELLE = re.compile(r"得分[:：]?\s*([01](?:\.\d+)?)(?![\d.]*\d)")
_BELLE_LINE = re.compile(r"[01](?:\.\d+)?(?=\s*分(?:\s*/|\W*$))")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_TUPLE = re.compile(r"\(\s*(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*\)")
_TUPLE_LINE = re.compile(r"score|tuple|output", re.IGNORECASE)
_LABELLED = re.compile(r"^\W*Assistant ([12])\W*:\W*(\d+(?:\.\d+)?)(?:\s*/\s*10)?\.?(?:\s*$|\s*[(]|\s+-)", re.MULTILINE)
_HEADS = {"paper": "###{}", "fastchat": "[{}]"}


@dataclass(frozen=True, slots=True)
class Way:
    """How to ask."""

    protocol: str
    markers: Literal["paper", "fastchat"] | str = "paper"
    fence: Literal["nonce", "plain"] | str = "nonce"
    digit: Literal["first", "last"] | str = "first"


@dataclass(frozen=True, slots=True)
class Asked:
    """One question to a judge."""

    system: str
    user: str
    mark: str
    """What the replies stand between; empty for nothing."""
    replies: tuple[str, ...]
    """What is judged, in the order shown."""

    @property
    def messages(self) -> list[dict[str, str]]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": self.user}]


def questions(way: Way, item: Item, reply: str, other: str | None, published: Mapping[str, Words]) -> dict[str, Asked]:
    """What is asked about one reply, by part. `other` is the reply it is compared with, `published` what `wording.read` gave."""
    match way.protocol:
        case "belle":
            return {"": _belle(way, item, reply, wording.choose("belle", item, published))}
        case "vicuna":
            assert other is not None
            words = wording.choose("vicuna", item, published)
            return {"given": _vicuna(way, item, (reply, other), words), "swapped": _vicuna(way, item, (other, reply), words)}
    return {aspect: _impact(way, item, reply, aspect, published) for aspect in PARTS["impact"]}


def asked_text(item: Item) -> str:
    """What the model was asked: one question as it is, a conversation with who says what."""
    said = [(one.role, "\n".join(part for part in (one.text, one.input) if part)) for one in item.messages]
    return said[0][1] if len(said) == 1 else "\n\n".join(f"{role}: {text}" for role, text in said)


def _belle(way: Way, item: Item, reply: str, words: Words) -> Asked:
    """BELLE's ChatGPT_Score.html.temp, which has the reply in quotes where the marks are."""
    mark = _mark(way, reply)
    gold = "" if repaired(item.category) in wording.WITHOUT_REFERENCE or not item.reference else f"标准回答:{item.reference}"
    shown = f"\n{_fenced(reply, mark)}\n" if mark else f"' {reply}'"
    asks = _about(mark, "zh") + "请针对模型回答给出得分，顺便给出理由："
    user = f"{words.prompt} {asked_text(item)} {gold}  模型回答：{shown}。{asks}"
    return Asked(words.system, user, mark, (reply,))


def _vicuna(way: Way, item: Item, replies: tuple[str, str], words: Words) -> Asked:
    mark = _mark(way, *replies)
    parts = [f"{_head(way, 'Question')}\n{asked_text(item)}"]
    for number, reply in enumerate(replies, start=1):
        start, end = (_head(way, f"The {side} of Assistant {number}'s Answer") for side in ("Start", "End"))
        parts.append(f"{start}\n{_fenced(reply, mark)}\n{end}")
    parts.append(f"{_head(way, 'System')}\n{words.prompt}" if way.markers == "fastchat" else words.prompt)
    return Asked(words.system, "\n\n".join(parts) + _about(mark, "en", "\n"), mark, replies)


def _head(way: Way, title: str) -> str:
    return _HEADS[way.markers].format(title)


def _impact(way: Way, item: Item, reply: str, aspect: str, published: Mapping[str, Words]) -> Asked:
    """Coherence does not show the prompt: subjective.py."""
    own = wording.RELEVANCE if aspect == "relevance" else wording.COHERENCE
    words = published.get(aspect) or Words(wording.IMPACT.format(asks=own))
    mark = _mark(way, reply)
    prompt = f"Prompt:\n{asked_text(item)}\n\n" if aspect == "relevance" else ""
    user = f"{words.prompt}\n\n{prompt}Text:\n{_fenced(reply, mark)}" + _about(mark, "en", "\n\n")
    return Asked(words.system, user, mark, (reply,))


def _mark(way: Way, *replies: str) -> str:
    """A name that looks random, is the same for the same replies, and is in none of them."""
    if way.fence == "plain":
        return ""
    number = 0
    while True:
        text = "\0".join([str(number), *replies]).encode("utf-8", "surrogatepass")
        mark = f"answer-{hashlib.sha256(text).hexdigest()[:16]}"
        if not any(mark in reply for reply in replies):
            return mark
        number += 1


def _fenced(reply: str, mark: str) -> str:
    return f"<{mark}>\n{reply}\n</{mark}>" if mark else reply


def _about(mark: str, language: str, before: str = "") -> str:
    return before + wording.FENCED[language].format(mark=mark) if mark else ""


def values(way: Way, category: str, said: str, asked: Asked | None = None) -> tuple[float, ...] | None:
    """The judge's numbers, one for each reply it was shown; None where its words hold no verdict."""
    text = said if asked is None else without_echoes(said, asked.mark, asked.replies)
    match way.protocol:
        case "belle":
            return _one(belle_score(text))
        case "vicuna":
            return pair_scores(text, is_math=repaired(category) == "math")
    return _one(rubric_score(text, way.digit))


def _one(value: float | None) -> tuple[float, ...] | None:
    return None if value is None else (value,)


def without_echoes(said: str, mark: str, replies: Sequence[str]) -> str:
    """A judge's words without what it repeats of the replies."""
    if mark:
        said = re.sub(rf"<{mark}>.*?(?:</{mark}>|\Z)", "", said, flags=re.DOTALL)
    for reply in sorted((reply.strip() for reply in replies), key=len, reverse=True):
        if len(reply) >= ECHO:
            said = said.replace(reply, "")
    return said


def belle_score(text: str) -> float | None:
    """0 to 1, clamped.

    >>> belle_score("得分：0.8\\n理由：得分0.8，因为完整"), belle_score("1分/1分"), belle_score("得分:11")
    (0.8, 1.0, None)
    """
    found = {min(1.0, float(number)) for number in _BELLE.findall(text)}
    if not found and (line := _BELLE_LINE.match(_first_line(text))):
        found = {min(1.0, float(line[0]))}
    return found.pop() if len(found) == 1 else None


def pair_scores(text: str, *, is_math: bool = False) -> tuple[float, float] | None:
    """Both of 0 to 10.

    >>> pair_scores("8.5, 9\\nBoth are"), pair_scores("8/10 9/10"), pair_scores("(3, 4) is near.\\nScores: (10, 2)", is_math=True)
    ((8.5, 9.0), None, (10.0, 2.0))
    """
    words = _first_line(text).replace(",", " ").split()
    if len(words) == 2 and all(_NUMBER.fullmatch(word) for word in words):
        return _pair(words[0], words[1])
    return _math_scores(text) if is_math else None


def _math_scores(text: str) -> tuple[float, float] | None:
    lines = [line for line in text.splitlines() if _TUPLE_LINE.search(line)]
    found = {_pair(first, second) for line in lines for first, second in _TUPLE.findall(line)}
    labelled = _LABELLED.findall(text)
    if labelled:
        firsts, seconds = ([score for name, score in labelled if name == one] for one in "12")
        found |= {_pair(first, second) for first in firsts for second in seconds}
    return found.pop() if len(found) == 1 else None


def _pair(first: str, second: str) -> tuple[float, float] | None:
    pair = float(first), float(second)
    return pair if max(pair) <= 10 else None


def rubric_score(text: str, digit: str = "first") -> float | None:
    """1 to 5.

    >>> rubric_score("4. The text"), rubric_score("8/10 but 3"), rubric_score("4 of 5", "last")
    (4.0, None, 5.0)
    """
    numbers = _NUMBER.findall(text)
    if not numbers:
        return None
    chosen = numbers[0 if digit == "first" else -1]
    return float(chosen) if chosen in ("1", "2", "3", "4", "5") else None


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")
