"""Which language a conversation is in: by its script where that says it, by lingua where not."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import regex

from babeltune.data.cleaning.kinds import Outcome, Place, RowStep, dropped, text_of
from babeltune.data.cleaning.texts import lines
from babeltune.errors import ConfigError, nearest, problem
from babeltune.records import Conversation
from babeltune.steps import LanguageStep

COMPARED = (
    "ar",
    "bn",
    "ca",
    "cs",
    "da",
    "de",
    "el",
    "en",
    "es",
    "fa",
    "fi",
    "fr",
    "he",
    "hi",
    "hu",
    "id",
    "it",
    "ja",
    "ko",
    "nb",
    "nl",
    "pl",
    "pt",
    "ro",
    "ru",
    "sv",
    "th",
    "tl",
    "tr",
    "uk",
    "vi",
    "zh",
)
"""What lingua tells apart, beside what a step keeps. All its 75 would be worse: short English texts become Latin or Yoruba."""


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_NO_PROSE = re.compile(
    r"`[^`\n]+`|https?://\S+|\S+@\S+\.\w+|</?[A-Za-z][^<>\n]*>|\\[A-Za-z]+|\$[^$\n]{1,200}\$|\b[A-Za-z]+[-_]?\d[\w-]*", re.ASCII
)
"""Code in a line, addresses, tags, formulas, part numbers."""
_CODE_LINE = re.compile(
    r"[;{}]\s*$|^\s*(?:def|class|import|return|const|let|var|function|public|private|static|#include|#define|#ifndef)\b[^.,?!。，]*$"
    r"|^\s*[\w.\[\]]+\s*(?:[-+*/]?=|=>|->|:=)|\w\([^()]*\)\s*[:;.]?\s*$"
)
"""What looks like code though no fence says so."""
_HAN = regex.compile(r"\p{Han}+")
_KANA = regex.compile(r"[\p{Hiragana}\p{Katakana}]+")
_HANGUL = regex.compile(r"\p{Hangul}+")
_LATIN = regex.compile(r"(?:\p{Latin}[\p{Latin}\p{M}]+|[\p{Latin}--[A-Za-z]])(?:['’]\p{Latin}+)?", regex.V1)
"""A word. One letter of the alphabet alone is a variable, a note or an answer's number."""
_OTHER = regex.compile(r"[\p{L}\p{M}--[\p{Latin}\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}ー々]]+", regex.V1)

KANA_SHARE = 0.25
"""Of the Chinese and Japanese characters; from here on it is Japanese, whose kana seldom are below a third."""
CHARACTERS_A_WORD = 1.5
"""Chinese and Japanese characters that count as much as a word of a language with spaces."""

_VI_LETTERS = frozenset("đơưạảấầẩẫậắằẳẵặẻếềểễệỉỏốồổỗộớờởỡợủứừửữựỳỵỷ")
"""Those that Romanian, Yoruba and Guarani do not write."""
_VI_WORDS = _set(
    "khong nguoi nhung duoc nhieu trong hoac viec cung thuong nghia phai nuoc thoi biet thich giup cua cac voi mot cho ban nay "
    "tren cach lam nhat nhu hay den khi la co the toi tu de cau"
)
"""Vietnamese without its marks, as it is typed in a hurry."""
_VI_SYLLABLE = re.compile(
    r"(?:[bdghklmnrstvx]|c|ch|gh|gi|kh|ng|ngh|nh|ph|qu|th|tr)?[aeiouy]{1,3}(?:c|ch|m|n|ng|nh|p|t)?", re.IGNORECASE
)
_EN_WORDS = _set("the and that with this which from are were has they their there would you your can should what how of is")
_SAMPLE = 300
"""Letters that lingua looks at, at the start, the middle and the end of a text each."""


@dataclass(frozen=True, slots=True)
class Found:
    """A text's main language."""

    tag: str
    """Empty when no letters say it."""
    confidence: float
    """0 to 1; 1 when the script or the words leave no doubt."""
    other_fraction: float
    """Share of the words that are in another language."""


def language(step: LanguageStep, place: Place) -> RowStep:
    """Looks at everything that is said but code, addresses and formulas. `ConfigError` for a language that lingua does not know."""
    detect = _detector(step)
    keep = frozenset(step.keep)
    wants_mixture = step.on_mixed == "drop"
    place.report["found"] = {}

    def clean(row: Conversation) -> list[Outcome]:
        found = look(text_of(row), detect, wants_mixture)
        if not found.tag or found.confidence < step.confidence:
            _count(place, "unknown")
            return [row if step.unknown == "keep" else dropped(row, "unknown language", found.tag)]
        _count(place, found.tag)
        if row.language != found.tag:
            row = replace(row, language=found.tag)
        if keep and found.tag not in keep:
            return [dropped(row, "other language", found.tag)]
        if wants_mixture and found.other_fraction >= step.mixed:
            return [dropped(row, "mixed languages", f"{found.tag} and {found.other_fraction:.0%} another")]
        return [row]

    return clean


Detect = Callable[[str], tuple[str, float]]
"""Words of one script to their language and how sure that is."""


def look(text: str, detect: Detect, wants_mixture: bool = True) -> Found:
    """The main language is that of the script with the most words."""
    prose = [
        _NO_PROSE.sub(" ", line)
        for line, is_code in lines(unicodedata.normalize("NFC", text))
        if not is_code and not _CODE_LINE.search(line)
    ]
    joined = "\n".join(prose)
    counts, wordlists = _scripts(joined)
    if not counts:
        return Found("", 0.0, 0.0)
    main = max(sorted(counts), key=counts.__getitem__)
    tag, confidence = (main, 1.0) if len(main) == 2 else _spoken(wordlists[main], detect)
    if not wants_mixture:
        return Found(tag, confidence, 0.0)
    other = sum(counts.values()) - counts[main]
    if main == "latin":
        other += _other_words(prose, tag, detect)
    return Found(tag, confidence, other / sum(counts.values()))


def _scripts(text: str) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Words by script, `zh`, `ja` and `ko` where the script is a language's own; and the words of those where it is not."""
    latin = _LATIN.findall(text)
    counts: dict[str, float] = {"latin": len(latin)}
    wordlists: dict[str, list[str]] = {"latin": latin}
    if not text.isascii():
        han, kana = sum(map(len, _HAN.findall(text))), sum(map(len, _KANA.findall(text)))
        is_japanese = kana >= KANA_SHARE * (han + kana)
        counts |= {"zh": 0 if is_japanese else han / CHARACTERS_A_WORD, "ja": (kana + is_japanese * han) / CHARACTERS_A_WORD}
        counts["ko"] = len(_HANGUL.findall(text))
        wordlists["other"] = _OTHER.findall(text)
        counts["other"] = len(wordlists["other"])
    return {script: count for script, count in counts.items() if count}, wordlists


def _spoken(words: list[str], detect: Detect) -> tuple[str, float]:
    """What words leave no doubt about, at once; else what lingua says."""
    lower = [word.lower() for word in words]
    if sum(not _VI_LETTERS.isdisjoint(word) for word in lower) >= max(2, 0.2 * len(lower)):
        return "vi", 1.0
    if _says(lower, _VI_WORDS) and sum(_VI_SYLLABLE.fullmatch(word) is not None for word in lower) >= 0.85 * len(lower):
        return "vi", 1.0
    if _says(lower, _EN_WORDS) and sum(word.isascii() for word in lower) >= 0.95 * len(lower):
        return "en", 1.0
    return detect(_sampled(" ".join(words)))


def _says(words: list[str], known: frozenset[str]) -> bool:
    """Whether enough of the words are of a short list: 8 in 100, and three different ones."""
    hits = [word for word in words if word in known]
    return len(hits) >= 0.08 * len(words) and len(set(hits)) >= 3


def _sampled(text: str) -> str:
    if len(text) <= 3 * _SAMPLE:
        return text
    middle = (len(text) - _SAMPLE) // 2
    return " ".join((text[:_SAMPLE], text[middle : middle + _SAMPLE], text[-_SAMPLE:]))


_LINE_WORDS = 5
"""Words from which a line has a language of its own."""


def _other_words(prose: list[str], main: str, detect: Detect) -> int:
    """Words of Latin letters on lines in another language than the main one."""
    count = 0
    for line in prose:
        words = _LATIN.findall(line)
        if len(words) >= _LINE_WORDS:
            tag, confidence = _spoken(words, detect)
            count += len(words) if tag and tag != main and confidence >= 0.5 else 0
    return count


def _detector(step: LanguageStep) -> Detect:
    """lingua over the compared languages. It loads a language's model when a text first may be in it; in all some 500 MB."""
    from lingua import IsoCode639_1, Language, LanguageDetectorBuilder

    codes = {language.iso_code_639_1.name.lower() for language in Language.all()}
    if unknown := [tag for tag in step.keep if tag not in codes]:
        raise ConfigError(
            problem("language.keep", ", ".join(unknown), "short tags of languages such as zh, vi, en", nearest(unknown[0], codes))
        )
    chosen = sorted({*COMPARED, *step.keep})
    built: list[Any] = []

    def detect(text: str) -> tuple[str, float]:
        if not built:
            languages = [Language.from_iso_code_639_1(IsoCode639_1.from_str(tag)) for tag in chosen]
            built.append(LanguageDetectorBuilder.from_languages(*languages).build())
        best = built[0].compute_language_confidence_values(text)[0]
        if best.value == 0:
            return "", 0.0
        return best.language.iso_code_639_1.name.lower(), round(best.value, 4)

    return detect


def _count(place: Place, tag: str) -> None:
    place.report["found"] = dict(Counter(place.report["found"]) + Counter([tag]))
