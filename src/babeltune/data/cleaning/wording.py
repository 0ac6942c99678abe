"""Numbering in one style, answers that are too short, and which words a corpus is made of."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import Any

import regex

from babeltune.data.cleaning.kinds import Corpus, CorpusStep, Outcome, Place, RowStep, dropped, text_of
from babeltune.data.cleaning.splitting import token_counts
from babeltune.data.cleaning.texts import lines, rewritten
from babeltune.records import Conversation
from babeltune.steps import NumberingStep, ShortAnswersStep, WordsStep

_INDENT = r"(?P<indent> {0,3}\u3000*)"
"""A line that is indented further is code to Markdown."""
_SIGNS = "".join(map(chr, [*range(0x2460, 0x249C), *range(0x24F5, 0x24FF), *range(0x2776, 0x2780), *range(0x3251, 0x3260)]))
"""① to ㉟, ⑴ to ⒇, ⒈ to ⒛, ⓵ to ⓾, ❶ to ❿: each has its number as its numeric value."""
_UP_TO_99 = "[1-9１-９][0-9０-９]?"
_NUMBERED = re.compile(
    rf"{_INDENT}(?:(?P<sign>[{_SIGNS}])[.、．)）]?(?![\s\u3000]*[{_SIGNS}和与及或至到~～])"
    rf"|[(（](?P<inside>{_UP_TO_99})[)）][.、．:：]?"
    rf"|(?P<before>{_UP_TO_99})(?:[)）][.．]?|、))"
    r"(?:(?P<gap>[ \t\u3000]+)(?=\S)|(?=\S))(?![)）\]+*/^=<>,.，。、;；-])"
)
_BARE = re.compile(rf"{_INDENT}(?P<number>[1-9][0-9]?)[ \t\u3000]+(?=[^\W\d_])")
_RUN = 3
"""So many lines in a row that begin with 1, 2, 3 are a list and not amounts."""


def numbering(step: NumberingStep, place: Place) -> RowStep:
    """In answers and documents, outside of code. Done twice it changes nothing more."""

    def clean(row: Conversation) -> list[Outcome]:
        return [rewritten(row, renumbered, ("assistant", "text"))]

    return clean


def renumbered(text: str) -> str:
    """Every number that begins a line as `1.`: `(1)`, `（1）`, `1)`, `1、`, `①`, and bare ones that count 1, 2, 3 line by line.

    >>> renumbered("（1）多喝水\\n② 1.5 mg")
    '1. 多喝水\\n2. 1.5 mg'
    """
    found = list(lines(text))
    counted = _counted([line for line, _ in found], [is_code for _, is_code in found])
    return "\n".join(line if is_code else _renumbered_line(line, number in counted) for number, (line, is_code) in enumerate(found))


def _renumbered_line(line: str, is_counted: bool) -> str:
    if is_counted and (bare := _BARE.match(line)):
        return f"{bare['indent']}{bare['number']}. {line[bare.end() :]}"
    hit = _NUMBERED.match(line)
    if hit is None or _is_range(hit, line):
        return line
    number = int(hit["inside"] or hit["before"] or unicodedata.numeric(hit["sign"]))
    return f"{hit['indent']}{number}. {line[hit.end() :]}"


def _is_range(hit: re.Match[str], line: str) -> bool:
    """`1、2月` are months and `2)3` is a sum: a number that a short one follows without a gap begins no item."""
    return hit["before"] is not None and hit["gap"] is None and re.match(r"\d{1,2}(?!\d)", line[hit.end() :]) is not None


def _counted(texts: list[str], is_code: list[bool]) -> set[int]:
    """Lines that begin with a bare number and stand in a run that counts up from 1, each on the line after the other."""
    found: set[int] = set()
    run: list[int] = []
    for number, text in enumerate([*texts, ""]):
        bare = None if number == len(texts) or is_code[number] else _BARE.match(text)
        if bare is not None and int(bare["number"]) == len(run) + 1:
            run.append(number)
            continue
        if len(run) >= _RUN:
            found.update(run)
        run = [number] if bare is not None and int(bare["number"]) == 1 else []
    return found


def short_answers(step: ShortAnswersStep, place: Place) -> RowStep:
    """The tokens of all answers together decide. A document has no answers and stays."""
    tokenizer = place.tokenizer(step.tokenizer)

    def clean(row: Conversation) -> list[Outcome]:
        if all(message.role == "text" for message in row.messages):
            return [row]
        answers = [message.text for message in row.messages if message.role == "assistant"]
        length = sum(token_counts(tokenizer, answers, special=False)) if answers else 0
        return [dropped(row, "short answer", f"{length} tokens") if length < step.min_tokens else row]

    return clean


_KEPT_WORDS = 200_000
"""Words counted at a time for one language. Above it the rarer half is forgotten, and the report says by how much a count may be
too low; some 20 MB."""
_HAN = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]+")
_WORD = regex.compile(r"[\p{L}\p{M}]+(?:['’-][\p{L}\p{M}]+)*")


def words(step: WordsStep, place: Place) -> CorpusStep:
    """Goes over the rows as they are and writes `language: {words, too_low_by, top: [[word, count], ...]}` into the report."""

    def look(corpus: Corpus) -> Iterator[Outcome]:
        tallies: dict[str, Tally] = {}
        for number, row in enumerate(corpus, start=1):
            tallies.setdefault(row.language, Tally()).add(list(words_of(text_of(row))))
            yield row
            if number % 1000 == 0:
                place.progress(number, len(corpus))
        place.report.update({language: tally.report(step.top) for language, tally in sorted(tallies.items())})

    return look


def words_of(text: str) -> Iterator[str]:
    """Words without case; of Chinese and Japanese, which have no spaces, every pair of neighbouring characters.

    >>> list(words_of("多喝水 Uống nước"))
    ['多喝', '喝水', 'uống', 'nước']
    """
    text = unicodedata.normalize("NFC", text).casefold()
    for run in _HAN.findall(text):
        yield from (run[at : at + 2] for at in range(len(run) - 1))
    yield from _WORD.findall(_HAN.sub(" ", text))


class Tally:
    """Counts words in bounded memory: a word's count is never too high, and too low by at most `too_low_by` (lossy counting)."""

    def __init__(self, limit: int = _KEPT_WORDS) -> None:
        self.limit, self.total, self.too_low_by = limit, 0, 0
        self.counts: Counter[str] = Counter()

    def add(self, found: list[str]) -> None:
        self.counts.update(found)
        self.total += len(found)
        if len(self.counts) > self.limit:
            kept = sorted(self.counts.items(), key=_rank)
            self.too_low_by += kept[self.limit // 2][1]
            self.counts = Counter(dict(kept[: self.limit // 2]))

    def report(self, top: int) -> dict[str, Any]:
        best = sorted(self.counts.items(), key=_rank)[:top]
        return {"words": self.total, "too_low_by": self.too_low_by, "top": [[word, count] for word, count in best]}


def _rank(entry: tuple[str, int]) -> tuple[int, str]:
    return -entry[1], entry[0]
