"""A text taken apart into what is translated and what stays as it is: code, addresses, tags, formulas, blanks to fill in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from itertools import pairwise

Fits = Callable[[str], bool]
"""Whether a text is short enough to be translated at once."""

_BLOCKS = (
    r"^[ \t]*(?P<fence>```+|~~~+)[^\n]*\n(?:.*?^[ \t]*(?P=fence)[`~]*[ \t]*$|.*\Z)",  # a fence that is not closed goes to the end
    r"\$\$.{1,5000}?\$\$",
    r"\\\[.{1,5000}?\\\]",
    r"\\begin\{(?P<environment>[a-zA-Z*]+)\}.*?\\end\{(?P=environment)\}",
    r"<!--.*?-->",
    r"<(?P<element>pre|script|style|svg)\b.*?</(?P=element)\s*>",
)
_INLINE = (
    r"(?<!`)(?P<ticks>`{1,3})(?!`)[^\n]*?(?<!`)(?P=ticks)(?!`)",
    r"(?:https?|ftp)://[^\s<>\"'）】」，。；、]*[^\s<>\"'）】」，。；、.,;:!?)\]]",
    r"\bwww\.[^\s<>\"'，。；、]*[^\s<>\"'，。；、.,;:!?)\]]",
    r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b",
    r"</?[a-zA-Z][a-zA-Z0-9-]*(?:\s[^<>\n]*)?/?>",
    r"<\|[^<>\n|]+\|>",
    r"(?<![\\$\w])\$(?![\s$])[^$\n]*?(?<![\s\\$])\$(?![\d$])",  # not the dollars of "$5 and $10": pandoc's rule
    r"\\\([^\n]+?\\\)",
    r"\{\{[^{}\n]+\}\}|\$\{[^{}\n]+\}|\{\w*\}",
    r"%\(\w+\)[sdf]|%(?:\.\d+)?[sdf]\b",
    r"\[[A-Z][A-Z0-9_]+\]|<[A-Z][A-Z0-9_]+>",
)
_BLOCK = re.compile("|".join(_BLOCKS), re.DOTALL | re.MULTILINE)
_KEPT = re.compile("|".join(_INLINE))
_LEAD = re.compile(r"(?:\s*(?:(?:[-*+•]|#{1,6}|>+|\(?\d{1,3}[.)]|\|)(?=\s)|\d{1,3}、))*\s*")
"""What a line may begin with that is no part of its first sentence: a bullet, a number, a heading's marks."""
_BOUNDARIES = (
    re.compile(r"\n[ \t]*\n\s*"),
    re.compile(r"\n\s*"),
    re.compile(
        r"(?:(?<=[.!?…])(?<!\b[A-Z]\.)(?<!Mr\.)(?<!Dr\.)(?<!Mrs\.)(?<!e\.g\.)(?<!i\.e\.)[\"'”’)]*\s+|(?<=[。！？])[”’」）]*\s*)"
    ),
    re.compile(r"(?<=[,;:])\s+|(?<=[，；：、])"),
    re.compile(r"\s+"),
    re.compile(r"(?<=.)", re.DOTALL),
)
"""Where a text may be cut, best first: paragraphs, lines, sentences, clauses, words, anywhere."""
_MARKS = (("[[", "]]"), ("{{", "}}"), ("((", "))"), ("@@", "@@"))
"""What stands for kept text while its sentence is translated; the first that the sentence does not have itself is taken."""


class Cut(Enum):
    """How small the pieces are that are translated one by one."""

    block = auto()
    """As much as fits, lines and all: for a model that can be told to keep them."""
    sentence = auto()
    fragment = auto()
    """What stands between kept parts: nothing is left that could get lost."""
    whole = auto()
    """The text as it is."""


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    is_prose: bool
    """Whether it is translated."""


def pieces(text: str, cut: Cut, fits: Fits) -> list[Piece]:
    """The text in pieces, which put together are the text.

    >>> [piece.text for piece in pieces("See `a`. Then stop.", Cut.sentence, lambda text: True)]
    ['See `a`.', ' ', 'Then stop.']
    """
    if cut is Cut.whole:
        return [Piece(text, letters(text) > 0)]
    found: list[Piece] = []
    for part, is_kept in _alternating(text, _BLOCK):
        if is_kept:
            found.append(Piece(part, False))
        elif cut is Cut.block:
            for run in _fitting(part, fits):
                found += _trimmed(run, re.compile(r"\s*"))
        else:
            for sentence in _sentences(part):
                for run in _fitting(sentence, fits):
                    found += _trimmed(run, _LEAD) if cut is Cut.sentence else _fragments(run)
    return found


def letters(text: str) -> int:
    """How many letters of a text are not of parts that are kept."""
    return sum(character.isalpha() for part, is_kept in _alternating(text, _BLOCK, _KEPT) if not is_kept for character in part)


def kept(text: str) -> list[str]:
    """The parts of a text that a translation must have as they are, sorted."""
    return sorted(part for part, is_kept in _alternating(text, _BLOCK, _KEPT) if is_kept)


@dataclass(frozen=True, slots=True)
class Masked:
    """A text with marks in the place of what is kept."""

    text: str
    mark: tuple[str, str]
    parts: tuple[str, ...]

    def restored(self, translation: str) -> str | None:
        """The translation with the kept parts back in it; None when a mark is missing, twice there or new, or lines are."""
        if translation.count("\n") != self.text.count("\n"):
            return None
        if not self.parts:
            return translation
        opening, closing = self.mark
        pattern = re.compile(rf"{re.escape(opening)}\s*(\d+)\s*{re.escape(closing)}")
        if sorted(int(one) for one in pattern.findall(translation)) != list(range(len(self.parts))):
            return None
        return pattern.sub(lambda match: self.parts[int(match[1])], translation)


def mask(text: str) -> Masked:
    """Put a numbered mark in the place of each part that is kept.

    >>> mask("Run `ls` in <b>").text
    'Run [[0]] in [[1]]'
    """
    opening, closing = next((one for one in _MARKS if one[0] not in text), _MARKS[0])
    shown: list[str] = []
    parts: list[str] = []
    for part, is_kept in _alternating(text, _KEPT):
        shown.append(f"{opening}{len(parts)}{closing}" if is_kept else part)
        if is_kept:
            parts.append(part)
    return Masked("".join(shown), (opening, closing), tuple(parts))


def _alternating(text: str, *patterns: re.Pattern[str]) -> Iterable[tuple[str, bool]]:
    """The text as stretches that no pattern matches, and stretches, marked True, that one does; earlier patterns go first."""
    end = 0
    for match in patterns[0].finditer(text):
        if match.end() > match.start():
            yield from _rest(text[end : match.start()], patterns[1:])
            yield match[0], True
            end = match.end()
    yield from _rest(text[end:], patterns[1:])


def _rest(text: str, patterns: tuple[re.Pattern[str], ...]) -> Iterable[tuple[str, bool]]:
    if text and patterns:
        yield from _alternating(text, *patterns)
    elif text:
        yield text, False


def _sentences(text: str) -> list[str]:
    """Each with the white space behind it; lines are cut too, and sentences inside of what is kept are not."""
    return [sentence for line in _split(text, _BOUNDARIES[1]) for sentence in _split(line, _BOUNDARIES[2])]


def _split(text: str, boundary: re.Pattern[str]) -> list[str]:
    inside = [match.span() for match in _KEPT.finditer(text)]
    ends = [match.end() for match in boundary.finditer(text)]
    ends = [end for end in ends if not any(start < end < stop for start, stop in inside)]
    return [text[start:end] for start, end in pairwise([0, *ends, len(text)]) if end > start]


def _fitting(text: str, fits: Fits, level: int = 0) -> list[str]:
    """The text in few runs that fit, cut at the best boundaries that do. A kept part that does not fit is a run of its own."""
    if fits(text.strip()) or level == len(_BOUNDARIES):
        return [text]
    runs: list[str] = []
    for part in _split(text, _BOUNDARIES[level]):
        if runs and fits((runs[-1] + part).strip()):
            runs[-1] += part
        else:
            runs += _fitting(part, fits, level + 1)
    return runs


def _trimmed(text: str, lead: re.Pattern[str]) -> list[Piece]:
    """The text without what stands around it, and that."""
    start = match.end() if (match := lead.match(text)) else 0
    end = len(text.rstrip())
    if start >= end or letters(text[start:end]) == 0:
        return [Piece(text, False)]
    around = (Piece(text[:start], False), Piece(text[start:end], True), Piece(text[end:], False))
    return [piece for piece in around if piece.text]


def _fragments(text: str) -> list[Piece]:
    found: list[Piece] = []
    for part, is_kept in _alternating(text, _KEPT):
        found += [Piece(part, False)] if is_kept else _trimmed(part, _LEAD)
    return found
