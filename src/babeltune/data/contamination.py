"""Rows of the training data that hold what a model is judged on.

An item is found in a conversation when one message holds at least `overlap` of the n-grams of its question, or of its reference:
13-grams of words as in GPT-3 (Brown et al. 2020, appendix C), and a share of them, as in PaLM (Chowdhery et al. 2022, section 8),
because one shared 13-gram is often a quotation or a phrase of the task. Scripts without spaces are compared by characters: 20 of
Chinese say what 13 words of English do. Vietnamese is written in syllables with spaces between, which count as words. A question
shorter than an n-gram is found where a whole message of the user is the same; a short reference says nothing. N-grams that more
than 10 items have are the words of the task and count for none (GPT-3 leaves out what is as frequent in the training data).

Translations and paraphrases of an item are not found.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from babeltune.options import ContaminationConfig
from babeltune.records import Conversation, Dropped, Item

Outcome = Conversation | Dropped

VERSION = 1
"""Raised when the same texts would be found elsewhere."""
REASON = "in the evaluation set"
COMMON = 10
SAMPLES = 20
"""Pairs that a report shows."""

_WORD = re.compile(r"[^\W_]+")
_SPACELESS = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Thai, Lao, Tibetan, Burmese, Khmer, kana and Han."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What must not be in the training data."""

    suite: str
    id: str
    question: str
    reference: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A conversation that holds something of the evaluation."""

    number: int
    """Its place in its source's stream, counted from 0 and drops included."""
    place: str
    probes: tuple[int, ...]
    """Numbers of the probes that it holds."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. Counts are of rows that are trained on."""

    suites: Mapping[str, Mapping[str, int]]
    """Suite to its `items` and how many of them were `found`."""
    sources: Mapping[str, Mapping[str, int]]
    """Source to its `rows` in the mix and how many of them `hold` an item."""
    samples: Sequence[Mapping[str, str]] = ()
    """The first pairs: `source`, `place`, `suite`, `item`."""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What a reader of a table must know; empty when nothing was found.

        >>> Report({"toy": {"items": 9, "found": 2}}, {"zh": {"rows": 50, "hold": 1}}).label
        '2 of 9 evaluation items are in the training data (1 row)'
        """
        found = sum(counts["found"] for counts in self.suites.values())
        rows = sum(counts["hold"] for counts in self.sources.values())
        items = sum(counts["items"] for counts in self.suites.values())
        plural = "" if rows == 1 else "s"
        return f"{found:,} of {items:,} evaluation items are in the training data ({rows:,} row{plural})" if found else ""


def probe(suite: str, item: Item) -> Probe:
    """What an evaluation item asks, without the system's words, and its reference."""
    spoken = (message for message in item.messages if message.role != "system")
    return Probe(suite, item.id, "\n".join(f"{message.text}\n{message.input}" for message in spoken), item.reference)


def probes_of(suite: str, rows: Iterable[Outcome]) -> Iterator[Probe]:
    """The first question and answer of each conversation of a file, or the whole of each document."""
    for row in rows:
        if isinstance(row, Conversation):
            turns = [message for message in row.messages if message.role != "system"]
            answer = turns[1].text if len(turns) > 1 else ""
            yield Probe(suite, row.place, f"{turns[0].text}\n{turns[0].input}", answer)


class Index:
    """The n-grams of all probes. It holds them in memory: a few hundred bytes for each word of the evaluation.

    >>> index = Index(probes, ContaminationConfig())
    >>> index.found(conversation)
    (17,)
    """

    def __init__(self, probes: Iterable[Probe], options: ContaminationConfig) -> None:
        self.probes = tuple(probes)
        self._options = options
        self._grams: dict[str, list[int]] = {}
        """n-gram to the texts that have it. A gram of words has spaces, one of characters has none."""
        self._wholes: dict[str, list[int]] = {}
        """Question too short for an n-gram, as one word, to its probes."""
        self._owners: list[int] = []
        """Text to its probe."""
        for number, one in enumerate(self.probes):
            self._add(number, one.question, is_question=True)
            self._add(number, one.reference, is_question=False)
        self._grams = {gram: texts for gram, texts in self._grams.items() if len({self._owners[one] for one in texts}) <= COMMON}
        self._sizes = Counter(text for texts in self._grams.values() for text in texts)

    @property
    def key(self) -> str:
        """The same for the same probes and options, sha256 in hex."""
        options = [self._options.words, self._options.characters, self._options.overlap, VERSION]
        parts = [options, [asdict(one) for one in self.probes]]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def found(self, conversation: Conversation) -> tuple[int, ...]:
        """The numbers of the probes that one of the messages holds, rising."""
        owners: set[int] = set()
        for message in conversation.messages:
            words = _words(f"{message.text}\n{message.input}")
            if message.role in ("user", "text"):
                owners.update(self._wholes.get("".join(words), ()))
            shared: Counter[int] = Counter()
            for gram in self._looked_up(words):
                if gram in self._grams:
                    shared.update(self._grams[gram])
            owners.update(
                self._owners[text] for text, count in shared.items() if count >= self._options.overlap * self._sizes[text]
            )
        return tuple(sorted(owners))

    def _add(self, number: int, text: str, is_question: bool) -> None:
        words = _words(text)
        grams = (
            _character_grams(words, self._options.characters) if _is_spaceless(words) else _word_grams(words, self._options.words)
        )
        if grams:
            for gram in grams:
                self._grams.setdefault(gram, []).append(len(self._owners))
            self._owners.append(number)
        elif is_question and words:
            self._wholes.setdefault("".join(words), []).append(number)

    def _looked_up(self, words: list[str]) -> set[str]:
        """Both kinds of n-grams, so that a text in two languages is found by either."""
        grams = _word_grams(words, self._options.words)
        if any(map(_SPACELESS.search, words)):
            grams |= _character_grams(words, self._options.characters)
        return grams


def find(read: Callable[[], Iterable[Outcome]], index: Index, key: Mapping[str, object], cache: Path) -> list[Hit]:
    """The conversations of a stream that hold something of the evaluation. `key` says what the stream is; what was looked for
    there before is not looked for again."""
    text = json.dumps({"stream": dict(key), "index": index.key}, sort_keys=True)
    path = cache / "contamination" / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
    if path.is_file():
        return [Hit(number, place, tuple(probes)) for number, place, probes in json.loads(path.read_text(encoding="utf-8"))]
    hits = list(_hits(read(), index))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    temporary.write_text(json.dumps([[hit.number, hit.place, hit.probes] for hit in hits]), encoding="utf-8")
    temporary.replace(path)
    return hits


def without(read: Callable[[], Iterable[Outcome]], index: Index) -> Iterator[Outcome]:
    """The stream, with what holds something of the evaluation dropped."""
    for row in read():
        found = index.found(row) if isinstance(row, Conversation) else ()
        if found and isinstance(row, Conversation):
            first = index.probes[found[0]]
            yield Dropped(row.place, REASON, f"{first.suite}: {first.id}", language=row.language)
        else:
            yield row


def report(hits: Mapping[str, Sequence[Hit]], rows: Mapping[str, int], index: Index, options: ContaminationConfig) -> Report:
    """Counts over the hits of each source; `rows` is how many rows of each are in the mix."""
    found = {number for ones in hits.values() for hit in ones for number in hit.probes}
    suites: dict[str, dict[str, int]] = {}
    for number, one in enumerate(index.probes):
        counts = suites.setdefault(one.suite, {"items": 0, "found": 0})
        counts["items"] += 1
        counts["found"] += number in found
    sources = {name: {"rows": count, "hold": len(hits.get(name, ()))} for name, count in rows.items()}
    pairs = (
        {"source": name, "place": hit.place, "suite": index.probes[number].suite, "item": index.probes[number].id}
        for name, ones in hits.items()
        for hit in ones
        for number in hit.probes
    )
    settings = {"words": options.words, "characters": options.characters, "overlap": options.overlap}
    return Report(suites, sources, [pair for pair, _ in zip(pairs, range(SAMPLES), strict=False)], settings)


def _hits(rows: Iterable[Outcome], index: Index) -> Iterator[Hit]:
    for number, row in enumerate(rows):
        if isinstance(row, Conversation) and (found := index.found(row)):
            yield Hit(number, row.place, found)


def _words(text: str) -> list[str]:
    """Runs of letters and digits in one width and case."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _is_spaceless(words: list[str]) -> bool:
    """Whether most letters are of a script that puts no spaces between words."""
    joined = "".join(words)
    return 2 * len(_SPACELESS.findall(joined)) > len(joined)


def _word_grams(words: list[str], size: int) -> set[str]:
    return {" ".join(words[start : start + size]) for start in range(len(words) - size + 1)}


def _character_grams(words: list[str], size: int) -> set[str]:
    joined = "".join(words)
    return {joined[start : start + size] for start in range(len(joined) - size + 1)}
