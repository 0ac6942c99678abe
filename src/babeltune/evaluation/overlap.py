"""What a run is judged on, looked for in what it is trained on."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from babeltune.data import contamination, preparing
from babeltune.data.contamination import Index, Probe, Report
from babeltune.data.preparing import Writing
from babeltune.evaluation import suites
from babeltune.options import Contamination, RunConfig
from babeltune.records import Item

log = logging.getLogger(__name__)

PLAIN = "{question}"
"""The prompt that is the question alone: what a suite puts around it is in no training data."""


def apart(config: RunConfig) -> Index | None:
    """What must not be trained on; None when such rows are not to be dropped."""
    if config.data.contamination.action is not Contamination.drop or not config.data.sources:
        return None
    return _index(config, _plain_items(config))


def report(config: RunConfig, way: Writing, cache: Path, items: Sequence[Item] | None = None) -> Report | None:
    """What of the evaluation is in the mix, after dropping where that was asked for; None when there is nothing to compare.

    `items` are the suite's where they are at hand. The log has one line of it.
    """
    if config.data.contamination.action is Contamination.off or not config.data.sources:
        return None
    at_hand = items is not None and config.evaluation.prompt == PLAIN
    index = _index(config, items if items is not None and at_hand else _plain_items(config))
    if not index.probes:
        return None
    is_dropping = config.data.contamination.action is Contamination.drop
    found = preparing.overlap(config, way, cache, index, apart=index if is_dropping else None)
    if found.label:
        first = found.samples[0]
        log.warning("%s, as %s has %s of %s", found.label, first["place"], first["item"], first["suite"])
    else:
        log.info("none of %d evaluation items is in the training data", len(index.probes))
    return found


def _plain_items(config: RunConfig) -> list[Item]:
    return suites.items(replace(config, evaluation=replace(config.evaluation, prompt=PLAIN)))


def _index(config: RunConfig, items: Sequence[Item]) -> Index:
    return Index(_probes(config, items), config.data.contamination)


def _probes(config: RunConfig, items: Sequence[Item]) -> Iterator[Probe]:
    for item in items:
        yield contamination.probe(config.evaluation.name, item)
    for name, source in config.data.contamination.against.items():
        rows = preparing.conversations(source, Path(config.paths.data), config.data.max_bad_fraction)
        yield from contamination.probes_of(name, rows)
