"""Conversations through the steps of a pipeline, into a folder known by what went in: cleaned once, read by every mix."""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from babeltune.data.cleaning import making
from babeltune.data.cleaning.kinds import Outcome, Place, RowStep, text_of
from babeltune.data.cleaning.spool import Kept, Spool, read
from babeltune.data.filters import prompt_hash
from babeltune.records import Conversation, Dropped, Sample, StepReport
from babeltune.steps import StepConfig

VERSION = 1
"""Raised when a step gives other rows for the same options and conversations."""

AGAIN = "again"
"""Marks a folder whose rows some step could not do for now: it is made again by the next run that asks for it."""

SAMPLES = 5
"""Kept for each step and reason."""
SAMPLE_CHARACTERS = 2_000


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What came out of a pipeline."""

    folder: Path
    reports: tuple[StepReport, ...]

    def read(self, source: str) -> Iterator[Outcome]:
        """The conversations of one source that are left, after what was dropped of it."""
        return read(self.folder / f"{source}.zst")


def clean(
    steps: Mapping[str, StepConfig],
    inputs: Mapping[str, Callable[[], Iterable[Outcome]]],
    key_parts: Mapping[str, object],
    cache: Path,
    tokenizer: Callable[[str | None], Any],
    belongs: str = "",
) -> Cleaned:
    """The inputs, by source, through the steps one after the other; all sources go through as one stream.

    `belongs` is the source whose own steps these are; empty for those of the whole mix. `key_parts` names whatever decides
    the outcome: the inputs' own keys, the steps, the bytes of the models they name. The folder appears all at once, and is
    found again by the same parts.
    """
    text = json.dumps({"parts": dict(key_parts), "version": VERSION}, sort_keys=True, ensure_ascii=False)
    folder = cache / "cleaned" / hashlib.sha256(text.encode()).hexdigest()
    if not folder.is_dir() or (folder / AGAIN).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
        unfinished.mkdir()
        try:
            _run(steps, inputs, unfinished, cache / "steps", tokenizer)
            _publish(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return Cleaned(folder, _reports(folder, belongs))


def _run(
    steps: Mapping[str, StepConfig],
    inputs: Mapping[str, Callable[[], Iterable[Outcome]]],
    folder: Path,
    cache: Path,
    tokenizer: Callable[[str | None], Any],
) -> None:
    scratch = folder / "scratch"
    cache.mkdir(parents=True, exist_ok=True)
    runs = []
    for number, (name, step) in enumerate(steps.items()):
        room = scratch / str(number)
        room.mkdir(parents=True)
        runs.append(_Run(name, step, Place(scratch=room, cache=cache, tokenizer=tokenizer)))
    with contextlib.ExitStack() as files:
        out = {source: files.enter_context(Spool(folder / f"{source}.zst")) for source in inputs}
        stream = _first(inputs, out)
        for run in runs:
            stream = run.through(stream, out)
        for conversation in stream:
            out[conversation.source].append(conversation)
    reports = [asdict(run.finish()) for run in runs]
    if any(run.place.is_unfinished for run in runs):
        (folder / AGAIN).touch()
    with (folder / "report.json").open("w", encoding="utf-8", errors="surrogatepass") as file:
        json.dump(reports, file, ensure_ascii=False, indent=1)
        file.flush()
        os.fsync(file.fileno())
    shutil.rmtree(scratch)


def _first(inputs: Mapping[str, Callable[[], Iterable[Outcome]]], out: Mapping[str, Spool]) -> Iterator[Conversation]:
    """The conversations there are, each with the hash of its prompt; what was dropped before goes straight to the result."""
    for source, rows in inputs.items():
        for row in rows():
            if isinstance(row, Dropped):
                out[source].append(row)
            else:
                yield row if row.prompt is not None else replace(row, prompt=prompt_hash(row))


class _Run:
    """A step at work, and its report."""

    def __init__(self, name: str, step: StepConfig, place: Place) -> None:
        self.name, self.step, self.place = name, step, place
        self._seen = self._kept = self._changed = 0
        self._dropped: Counter[str] = Counter()
        self._samples: dict[str, list[tuple[int, int, Sample]]] = {}
        self._remembered = 0
        self._row: RowStep | None = None

    def through(self, stream: Iterator[Conversation], out: Mapping[str, Spool]) -> Iterator[Conversation]:
        self._row = making.row_step(self.step, self.place)
        pairs = self._one_by_one(stream) if self._row is not None else self._all_at_once(stream)
        for before, outcomes in pairs:
            for outcome in self._counted(before, outcomes):
                if isinstance(outcome, Dropped):
                    out[before.source].append(outcome)
                else:
                    yield outcome

    def finish(self) -> StepReport:
        samples = {
            reason: [one[2] for one in sorted(kept, key=lambda one: one[:2], reverse=True)]
            for reason, kept in self._samples.items()
        }
        return StepReport(
            source="",
            name=self.name,
            kind=self.step.kind,
            seen=self._seen,
            kept=self._kept,
            changed=self._changed,
            dropped=dict(sorted(self._dropped.items())),
            facts=self.place.report,
            samples=samples,
        )

    def _one_by_one(self, stream: Iterator[Conversation]) -> Iterator[tuple[Conversation, Sequence[Outcome]]]:
        assert self._row is not None
        for conversation in stream:
            yield conversation, self._row(conversation)

    def _all_at_once(self, stream: Iterator[Conversation]) -> Iterator[tuple[Conversation, Sequence[Outcome]]]:
        with Kept(self.place.scratch / "corpus.zst") as corpus:
            for conversation in stream:
                corpus.append(conversation)
        outcomes = making.corpus_step(self.step, self.place)(corpus)
        for before, outcome in zip(corpus, outcomes, strict=True):
            yield before, [outcome]
        shutil.rmtree(self.place.scratch)

    def _counted(self, before: Conversation, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        self._seen += 1
        for outcome in outcomes:
            if isinstance(outcome, Dropped):
                self._dropped[outcome.reason] += 1
                self._remember(outcome.reason, before, None, outcome.detail)
            else:
                self._kept += 1
        if len(outcomes) != 1 or (isinstance(outcomes[0], Conversation) and outcomes[0] is not before and outcomes[0] != before):
            self._changed += 1
            self._remember("changed", before, [one for one in outcomes if isinstance(one, Conversation)])
        return outcomes

    def _remember(self, reason: str, before: Conversation, after: Sequence[Conversation] | None, detail: str = "") -> None:
        """Keep the rows with the lowest hashes."""
        kept = self._samples.setdefault(reason, [])
        rank = -(before.prompt or 0)
        if len(kept) == SAMPLES and rank <= kept[0][0]:
            return
        later = None if after is None else "\n---\n".join(text_of(one) for one in after)[:SAMPLE_CHARACTERS]
        sample = Sample(before.place, text_of(before)[:SAMPLE_CHARACTERS], later, detail)
        self._remembered += 1
        entry = (rank, -self._remembered, sample)
        if len(kept) < SAMPLES:
            heapq.heappush(kept, entry)
        else:
            heapq.heapreplace(kept, entry)


def _reports(folder: Path, source: str) -> tuple[StepReport, ...]:
    reports = json.loads((folder / "report.json").read_bytes().decode("utf-8", "surrogatepass"))
    return tuple(
        StepReport(
            **report
            | {"source": source, "samples": {reason: [Sample(**one) for one in rows] for reason, rows in report["samples"].items()}}
        )
        for report in reports
    )


def _publish(unfinished: Path, folder: Path) -> None:
    if (folder / AGAIN).exists():
        shutil.rmtree(folder)
    try:
        os.rename(unfinished, folder)
    except OSError:
        if not folder.is_dir():
            raise
