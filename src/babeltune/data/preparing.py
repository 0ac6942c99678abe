"""From a mix's config to its examples and its ledger: each source tokenised once, then drawn from."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from babeltune.data import filters, formats, sources, store, templates
from babeltune.data.mixing import Pool, Taken, mix
from babeltune.data.store import TokenStore
from babeltune.data.templates import Marks, Template
from babeltune.data.tokenizing import Encoder
from babeltune.options import LossOn, RunConfig, SourceConfig
from babeltune.records import Conversation, Dropped, LedgerRow, MixLedger, Segment

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
    encoder = Encoder(tokenizer)
    identity = {"template": templates.digest(template), "tokenizer": encoder.digest}
    return Writing(encoder, template, Marks(bos=bos, eos=tokenizer.eos_token), identity)


def prepare(config: RunConfig, way: Writing, cache: Path) -> Mixed:
    """Tokenise what is not tokenised yet, draw the mix, and count what went in.

    Raises DataError for a source that is missing, has too many broken rows, or leaves nothing to train on.
    """
    stores = {name: tokenise(source, config, way, cache) for name, source in config.data.sources.items()}
    pools = [Pool(name, found.languages[found.pool]) for name, found in stores.items()]
    taken = mix(pools, config.data, config.seed)
    parts = [(stores[part.source], part) for part in taken]
    rows = tuple(row for found, part in parts for row in _ledger_rows(config.data.sources[part.source], found, part))
    standins = tuple(text for name, found in stores.items() if (text := standin(config.data.sources[name], found)))
    return Mixed(tuple(parts), MixLedger(rows, epochs=config.optimizer.epochs, standins=standins))


def tokenise(source: SourceConfig, config: RunConfig, way: Writing, cache: Path) -> TokenStore:
    """The tokens of one source. Sources are shared by all mixes, so this is done once for each way of writing."""
    root = Path(config.paths.data)
    fraction = heldout_fraction(source, config)
    parts = {
        "version": VERSION,
        "bytes": sources.digest(source, root, cache=cache / sources.DIGESTS),
        "reading": [source.format.value, source.language, source.encoding, sorted(source.rename.items()), source.files],
        "heldout_fraction": fraction,
        "max_bad_fraction": config.data.max_bad_fraction,
        "loss_on": config.data.loss_on.value,
        **way.identity,
    }
    return store.build_store(
        parts,
        cache,
        conversations(source, root, config.data.max_bad_fraction),
        functools.partial(way.segments, loss_on=config.data.loss_on),
        way.encoder,
        config.data.max_tokens,
        functools.partial(filters.is_heldout, fraction=fraction),
    )


def conversations(source: SourceConfig, root: Path, max_bad_fraction: float) -> Iterator[Conversation | Dropped]:
    """Every row of a source as a conversation that is kept, or the reason why it is not."""
    bad = filters.BadRows(source.name, max_bad_fraction)
    for row in formats.unfolded(sources.rows(source, root), source):
        item = row if isinstance(row, Dropped) else formats.conversation(row, source)
        bad.see(item)
        yield filters.keep(item) if isinstance(item, Conversation) else item
    bad.judge()


def heldout_fraction(source: SourceConfig, config: RunConfig) -> float:
    """Generated sources have test items of their own and hold out nothing."""
    return 0.0 if source.toy is not None else config.data.heldout_fraction


def standin(source: SourceConfig, found: TokenStore) -> str:
    """A sentence when the rows found are not as many as the card describes."""
    rows = sum(counts.found for counts in found.counts.values())
    if source.expected_rows is None or rows == source.expected_rows:
        return ""
    return f"{source.name}: {rows:,} rows where its card says {source.expected_rows:,}"


def _ledger_rows(source: SourceConfig, found: TokenStore, part: Taken) -> Iterator[LedgerRow]:
    rows = found.pool[part.indices]
    names = sorted({*np.unique(found.languages).tolist(), *(name for name in found.counts if name)}) or [source.language]
    for language in names:
        mine = rows[found.languages[rows] == language]
        counts = [found.counts[name] for name in _ledger_names(source, found, language, names) if name in found.counts]
        dropped: Counter[str] = Counter()
        for count in counts:
            dropped.update(count.dropped)
        in_language = found.languages == language
        yield LedgerRow(
            source=source.name,
            language=language,
            asked=part.asked,
            found=sum(count.found for count in counts),
            usable=int(np.count_nonzero(in_language[found.pool])),
            heldout=int(np.count_nonzero(in_language[found.heldout])),
            taken=len(mine),
            tokens=int(found.lengths[mine].sum()),
            target_tokens=int(found.target_counts[mine].sum()),
            dropped=dict(sorted(dropped.items())),
        )


def _ledger_names(source: SourceConfig, found: TokenStore, language: str, names: list[str]) -> list[str]:
    """A row too broken to have a language is counted with its source's own, or with the first."""
    home = source.language if source.language in names else names[0]
    return [language, ""] if language == home else [language]
