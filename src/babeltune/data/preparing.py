"""From a mix's config to its examples and its ledger: each source tokenised once, then drawn from."""

from __future__ import annotations

import functools
import logging
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from babeltune.data import contamination, filters, formats, sources, store, templates
from babeltune.data.cleaning import naming, pipeline
from babeltune.data.cleaning.kinds import Outcome
from babeltune.data.mixing import Pool, Taken, mix
from babeltune.data.store import TokenStore
from babeltune.data.templates import Marks, Template
from babeltune.data.tokenizing import Encoder
from babeltune.errors import DataError, problem
from babeltune.options import LossOn, PrepareStage, RunConfig, SourceConfig, StageConfig
from babeltune.records import Conversation, Dropped, LedgerRow, MixLedger, Segment, StepReport
from babeltune.steps import COMPARING, StepConfig

log = logging.getLogger(__name__)

VERSION = 1
"""Of the way from a row to a kept conversation: raised when the same bytes would give other conversations."""


@dataclass(frozen=True, slots=True)
class Writing:
    """How conversations become tokens: one object for training, evaluation and generation alike."""

    encoder: Encoder
    template: Template
    marks: Marks
    identity: Mapping[str, str]
    """Digests of the tokenizer and the template."""
    tokenizer: Any = None

    def segments(self, conversation: Conversation, loss_on: LossOn = LossOn.answers) -> list[Segment]:
        laid_out = templates.render(conversation.messages, self.template, self.marks)
        return templates.learn_everything(laid_out) if loss_on is LossOn.everything else laid_out


@dataclass(frozen=True, slots=True)
class Mixed:
    """A mix, ready to train on."""

    parts: tuple[tuple[TokenStore, Taken], ...]
    ledger: MixLedger


def writing(config: RunConfig, tokenizer: Any) -> Writing:
    """The one way in which this run writes text as tokens."""
    template = templates.choose(config.template.name, tokenizer)
    bos = tokenizer.bos_token if tokenizer.encode("a")[0] == tokenizer.bos_token_id else None
    encoder = _encoder(tokenizer)
    identity = {"template": templates.digest(template), "tokenizer": encoder.digest}
    return Writing(encoder, template, Marks(bos=bos, eos=tokenizer.eos_token), identity, tokenizer)


_encoders: weakref.WeakKeyDictionary[Any, tuple[int, Encoder]] = weakref.WeakKeyDictionary()


def _encoder(tokenizer: Any) -> Encoder:
    """Made once for a tokenizer, as long as nothing is added to it: it reads the whole vocabulary."""
    size, encoder = _encoders.get(tokenizer, (-1, None))
    if encoder is None or size != len(tokenizer):
        encoder = Encoder(tokenizer)
        _encoders[tokenizer] = (len(tokenizer), encoder)
    return encoder


def prepare(config: RunConfig, way: Writing, cache: Path, apart: contamination.Index | None = None) -> Mixed:
    """Clean and tokenise what is not there yet, draw the mix, and count what went in.

    Rows that hold something of `apart` are dropped.

    Raises DataError for a source that is missing, has too many broken rows, or leaves nothing to train on.
    """
    streams = cleaned(config, way, cache, apart)
    stores = {name: tokenise(streams.of[name], config, way, cache) for name in config.data.sources}
    pools = [_pool(name, found) for name, found in stores.items()]
    taken = mix(pools, config.data, config.seed)
    parts = [(stores[part.source], part) for part in taken]
    rows = _with_shares(row for found, part in parts for row in _ledger_rows(config.data.sources[part.source], found, part))
    standins = tuple(text for name, found in stores.items() if (text := standin(config.data.sources[name], found)))
    ledger = MixLedger(
        rows, epochs=config.optimizer.epochs, standins=standins, cleaning=_with_samples(streams.reports, config.stage)
    )
    return Mixed(tuple(parts), ledger)


@dataclass(frozen=True, slots=True)
class Stream:
    """The conversations of a source, cleaned."""

    source: SourceConfig
    key: Mapping[str, Any]
    """Whatever decides what is read."""
    read: Callable[[], Iterator[Outcome]]


@dataclass(frozen=True, slots=True)
class Streams:
    of: Mapping[str, Stream]
    """By source."""
    reports: tuple[StepReport, ...]


def cleaned(config: RunConfig, way: Writing, cache: Path, apart: contamination.Index | None = None) -> Streams:
    """Each source through its own steps, then the whole mix through the run's. Steps that were taken before are not taken again."""
    reports: list[StepReport] = []
    of = {name: _uncleaned(source, config, cache) for name, source in config.data.sources.items()}
    for name, source in config.data.sources.items():
        if source.cleaning:
            done, key = _through(source.cleaning, {name: of[name]}, way, cache, belongs=name)
            reports += done.reports
            of[name] = Stream(source, key, functools.partial(done.read, name))
    of = {name: replace(stream, read=functools.partial(_kept, stream.read)) for name, stream in of.items()}
    for part in _together(of, config.cleaning):
        done, key = _through(config.cleaning, part, way, cache, belongs=next(iter(part)) if len(part) < len(of) else "")
        reports += done.reports
        for name, stream in part.items():
            read = functools.partial(_kept, functools.partial(done.read, name))
            of[name] = Stream(stream.source, {**key, "source": name}, read)
    if apart is not None:
        of = {name: _apart(stream, apart) for name, stream in of.items()}
    return Streams(of, tuple(reports))


def overlap(
    config: RunConfig, way: Writing, cache: Path, index: contamination.Index, apart: contamination.Index | None = None
) -> contamination.Report:
    """What of the evaluation is in the mix. Of rows that are held out or were not drawn nothing is said."""
    streams = cleaned(config, way, cache, apart).of
    hits, counts = {}, {}
    for found, part in prepare(config, way, cache, apart).parts:
        stream = streams[part.source]
        taken = np.unique(found.origins[found.pool[part.indices]])
        all_hits = contamination.find(stream.read, index, stream.key, cache)
        are_taken = np.isin([hit.number for hit in all_hits], taken)
        hits[part.source] = [hit for hit, is_taken in zip(all_hits, are_taken, strict=True) if is_taken]
        counts[part.source] = len(taken)
    return contamination.report(hits, counts, index, config.data.contamination)


def _apart(stream: Stream, index: contamination.Index) -> Stream:
    key = {**stream.key, "apart": index.key}
    return Stream(stream.source, key, functools.partial(contamination.without, stream.read, index))


def _together(of: Mapping[str, Stream], steps: Mapping[str, StepConfig]) -> list[dict[str, Stream]]:
    """Which sources a pipeline has to see as one: all where a step compares rows; else each is cleaned once, for every mix."""
    if any(step.kind in COMPARING for step in steps.values()):
        return [dict(of)]
    return [{name: stream} for name, stream in of.items()] if steps else []


def _through(
    steps: Mapping[str, StepConfig], streams: Mapping[str, Stream], way: Writing, cache: Path, belongs: str = ""
) -> tuple[pipeline.Cleaned, Mapping[str, Any]]:
    key = {
        "inputs": [[name, dict(stream.key)] for name, stream in streams.items()],
        "steps": naming.key(steps, cache),
        "tokenizer": way.identity["tokenizer"] if any(getattr(step, "tokenizer", "") is None for step in steps.values()) else "",
    }
    inputs = {name: stream.read for name, stream in streams.items()}
    done = pipeline.clean(steps, inputs, key, cache, functools.partial(_tokenizer, way), belongs)
    return done, key


def _tokenizer(way: Writing, place: str | None) -> Any:
    """The run's own tokenizer, or another that a step counts with."""
    return way.tokenizer if place is None else tokenizer_of(place)


def tokenizer_of(place: str) -> Any:
    """The tokenizer of a folder or hub id. Raises DataError when there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except Exception as error:  # each kind of tokenizer fails in its own way
        words = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        where, got = "tokenizer of a cleaning step", f"no tokenizer in {place} ({words})"
        raise DataError(problem(where, got, "a folder or hub id with tokenizer files", "null for the model's own")) from error


def _uncleaned(source: SourceConfig, config: RunConfig, cache: Path) -> Stream:
    root, limit = Path(config.paths.data), config.data.max_bad_fraction
    key = {
        "version": VERSION,
        "bytes": sources.digest(source, root, cache=cache / sources.DIGESTS),
        "reading": [source.format.value, source.language, source.encoding, sorted(source.rename.items()), source.files],
        "max_bad_fraction": limit,
    }
    return Stream(source, key, functools.partial(rows, source, root, limit))


def _with_samples(reports: Iterable[StepReport], stage: StageConfig) -> tuple[StepReport, ...]:
    """The reports with as many samples as were asked for."""
    most = stage.samples if isinstance(stage, PrepareStage) else 0
    return tuple(
        replace(report, samples={reason: rows[:most] for reason, rows in report.samples.items()} if most else {})
        for report in reports
    )


def tokenise(stream: Stream, config: RunConfig, way: Writing, cache: Path) -> TokenStore:
    """The tokens of one source. Sources are shared by all mixes, so this is done once for each way of writing."""
    fraction = heldout_fraction(stream.source, config)
    parts = {**stream.key, "heldout_fraction": fraction, "loss_on": config.data.loss_on.value, **way.identity}
    built = store.build_store(
        parts,
        cache,
        stream.read(),
        functools.partial(way.segments, loss_on=config.data.loss_on),
        way.encoder,
        config.data.max_tokens,
        functools.partial(filters.is_heldout, fraction=fraction),
    )
    way.encoder.forget()
    return built


def conversations(source: SourceConfig, root: Path, max_bad_fraction: float) -> Iterator[Conversation | Dropped]:
    """Every row of a source, uncleaned, as a conversation that is kept, or the reason why it is not."""
    return _kept(functools.partial(rows, source, root, max_bad_fraction))


def rows(source: SourceConfig, root: Path, max_bad_fraction: float) -> Iterator[Conversation | Dropped]:
    """Every row of a source as a conversation, sound or not; a row that is none is `Dropped`."""
    bad = filters.BadRows(source.name, max_bad_fraction)
    for row in formats.unfolded(sources.rows(source, root), source):
        item = row if isinstance(row, Dropped) else formats.conversation(row, source)
        bad.see(item)
        yield item
    bad.judge()


def _kept(read: Callable[[], Iterator[Outcome]]) -> Iterator[Outcome]:
    return (filters.keep(item) if isinstance(item, Conversation) else item for item in read())


def heldout_fraction(source: SourceConfig, config: RunConfig) -> float:
    """Generated sources have test items of their own and hold out nothing."""
    return 0.0 if source.toy is not None else config.data.heldout_fraction


def standin(source: SourceConfig, found: TokenStore) -> str:
    """A sentence when the rows found are not as many as the card describes."""
    rows = sum(counts.found for counts in found.counts.values())
    if source.expected_rows is None or rows == source.expected_rows:
        return ""
    return f"{source.name}: {rows:,} rows where its card says {source.expected_rows:,}"


def _pool(source: str, found: TokenStore) -> Pool:
    return Pool(source, found.language_names, found.languages[found.pool], found.lengths[found.pool])


def _ledger_rows(source: SourceConfig, found: TokenStore, part: Taken) -> Iterator[LedgerRow]:
    rows, lengths = found.pool[part.indices], found.lengths
    names = sorted({*found.language_names, *(name for name in found.counts if name)}) or [source.language]
    for language in names:
        in_language = found.languages == (found.language_names.index(language) if language in found.language_names else -1)
        mine = rows[in_language[rows]]
        counts = [found.counts[name] for name in _ledger_names(source, found, language, names) if name in found.counts]
        dropped: Counter[str] = Counter()
        for count in counts:
            dropped.update(count.dropped)
        yield LedgerRow(
            source=source.name,
            language=language,
            asked=part.asked,
            found=sum(count.found for count in counts),
            usable=int(np.count_nonzero(in_language & ~found.is_heldout)),
            heldout=int(np.count_nonzero(in_language & found.is_heldout)),
            taken=len(mine),
            tokens=int(lengths[mine].sum()),
            target_tokens=int(found.target_counts[mine].sum()),
            cut_answers=sum(count.cut_answers for count in counts),
            dropped_turns=sum(count.dropped_turns for count in counts),
            dropped=dict(sorted(dropped.items())),
        )


def _with_shares(rows: Iterable[LedgerRow]) -> tuple[LedgerRow, ...]:
    """The rows, each with its share of the tokens of all."""
    rows = tuple(rows)
    whole = sum(row.tokens for row in rows)
    return tuple(replace(row, token_share=row.tokens / whole) for row in rows)


def _ledger_names(source: SourceConfig, found: TokenStore, language: str, names: list[str]) -> list[str]:
    """A row too broken to have a language is counted with its source's own, or with the first."""
    home = source.language if source.language in names else names[0]
    return [language, ""] if language == home else [language]
