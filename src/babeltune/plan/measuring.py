"""A process that finds out what cells would take, for a command that must not import torch: JSON in, a JSON line a cell out.

It prepares mixes and calibrates. It downloads nothing but configs and tokenizers, trains nothing, and writes in no cell's folder.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from babeltune import runner
from babeltune.cells import cache_folder
from babeltune.config import build, dump
from babeltune.data import preparing
from babeltune.data.datamodule import MixDataModule
from babeltune.data.preparing import Mixed
from babeltune.errors import BabelTuneError
from babeltune.evaluation import overlap, suites
from babeltune.evaluation.judging.protocols import PARTS
from babeltune.grid import terminable
from babeltune.judges import EndpointJudge
from babeltune.modeling import loading
from babeltune.options import ExtendVocabularyStage, NoAdapter, PrepareStage, RunConfig, Strategy
from babeltune.plan import advice, calibrations, estimating, machine, profiles, shapes
from babeltune.plan.calibrations import Found, Work
from babeltune.planned import Facts
from babeltune.training.checkpoints import KEPT as KEPT_CHECKPOINTS

CHECKPOINT = 3
"""Numbers that a checkpoint has of each trained parameter: itself, and AdamW's two means."""
NO_TRAINING = "trains nothing"
NO_MIX = "not calibrated: its mix is not here"


def main() -> int:
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    loading.hush_bitsandbytes()
    warnings.simplefilter("ignore")  # whatever libraries have to say comes again in a cell's log
    words = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.read())
    with terminable():
        for number, entry in enumerate(asked, 1):
            config = build(entry["config"])
            print(f"planning {number} of {len(asked)}: {entry['name']}", file=sys.stderr, flush=True)
            facts = look(config, is_trained=entry["is_trained"], has_data=entry["has_data"])
            words.write(json.dumps(asdict(facts)) + "\n")
            words.flush()
    words.close()
    return 0


def look(config: RunConfig, *, is_trained: bool, has_data: bool) -> Facts:
    """What a cell would still take. What cannot be found out is left open, and `notes` says why.

    `has_data` is false when a source of its mix is not here. Everything that a cell would refuse later is a note here.
    """
    facts = Facts(free=machine.free_bytes(config.trainer.accelerator))
    if config.model.answers is not None:
        return _with_items(facts, config)
    trains = bool(config.data.sources) and not isinstance(config.stage, (PrepareStage, ExtendVocabularyStage))
    is_mixed = bool(config.data.sources) and has_data and not isinstance(config.stage, ExtendVocabularyStage)
    try:
        tokenizer = _tokenizer(config, has_data)
        mixed = _prepared(config, tokenizer) if is_mixed and not is_trained else None
        if not trains:
            facts = dataclasses.replace(facts, steps=0, notes=(NO_TRAINING,))
        if mixed is not None and isinstance(config.stage, PrepareStage):
            ledger = mixed.ledger
            facts = dataclasses.replace(facts, tokens=ledger.num_tokens, target_tokens=ledger.num_target_tokens)
        if isinstance(config.stage, (PrepareStage, ExtendVocabularyStage)) or tokenizer is None:
            return facts
        facts = _with_items(facts, config)
        return _with_model(facts, config, tokenizer, mixed if trains else None, trains and not is_trained)
    except BabelTuneError as error:
        return dataclasses.replace(facts, notes=(*facts.notes, str(error)))


def _tokenizer(config: RunConfig, has_data: bool) -> Any:
    """The cell's tokenizer; None for one that is learned from a mix which is not here."""
    if has_data:
        return shapes.load_tokenizer(config)
    if config.model.tokenizer == "train":
        return None
    return shapes.load_tokenizer(dataclasses.replace(config, data=dataclasses.replace(config.data, sources={})))


def _with_model(facts: Facts, config: RunConfig, tokenizer: Any, mixed: Mixed | None, trains: bool) -> Facts:
    """With what follows from the model's shape: parameters, memory, time, disk."""
    shape = shapes.architecture(config, len(tokenizer))
    counts = shapes.parameters(config, shape)
    plan = steps = None
    if trains:
        facts = dataclasses.replace(facts, trainable=counts["trainable"], total=counts["total"])
    if mixed is not None:
        plan = _plan(mixed, config)
        steps = profiles.steps_of(plan)
        facts = dataclasses.replace(facts, steps=len(steps), tokens=steps.tokens, target_tokens=steps.targets)
    cache = cache_folder(config)
    replies = min(config.evaluation.batch, facts.items)
    work = Work(config, shape, tokenizer, shapes.weighing(shape), plan, steps, replies)
    found = calibrations.calibrate(work, cache) if steps is not None or replies else Found(None, NO_MIX if trains else "")
    facts = _with_time(dataclasses.replace(facts, how=found.how), work, found)
    if trains:
        memory = (found.calibration or {}).get("memory") or estimating.by_formula(
            config, counts, shapes.linear_parameters(shape), shape
        )
        facts = dataclasses.replace(facts, memory=estimating.shared(memory, config), disk=_disk(counts, config, mixed))
    return dataclasses.replace(facts, warnings=tuple(advice.warnings(facts, config)))


def _with_time(facts: Facts, work: Work, found: Found) -> Facts:
    calibration = found.calibration
    if calibration is None:
        return facts
    facts = dataclasses.replace(facts, loading=calibration["loading"], starting=calibration["starting"])
    if work.steps is not None:
        lasts = estimating.duration(calibration, work.steps, work.weighing, work.config)
        facts = dataclasses.replace(facts, seconds=round(lasts.wall, 2), cpu_seconds=round(lasts.cpu, 2))
        if work.config.trainer.strategy is not Strategy.single:
            facts = dataclasses.replace(facts, notes=(*facts.notes, "what its processes tell each other is not in its time"))
    if work.replies:
        facts = dataclasses.replace(facts, evaluation=estimating.judging(calibration, facts.items, work.config))
    return facts


def _with_items(facts: Facts, config: RunConfig) -> Facts:
    """With what a judge would be asked."""
    judge = config.judge
    if config.evaluation.kind == "none":
        return facts
    try:
        num_items = _num_items(config)
    except BabelTuneError as error:
        return dataclasses.replace(facts, notes=(*facts.notes, str(error)))
    if isinstance(judge, EndpointJudge):
        requests = num_items * judge.n_judgements * len(PARTS[judge.protocol])
        facts = dataclasses.replace(facts, requests=requests)
    return dataclasses.replace(facts, items=num_items)


def _plan(mixed: Mixed, config: RunConfig) -> Any:
    """Which examples make each step, as training itself has it."""
    examples = runner.examples_of(mixed, config)
    return MixDataModule(
        examples, data=config.data, optimizer=config.optimizer, trainer=config.trainer, seed=config.seed, pad_id=0
    ).plan


def _disk(counts: Mapping[str, int], config: RunConfig, mixed: Mixed | None) -> dict[str, int]:
    """Bytes on the disk: what stays, what passes, and the tokens that cells share."""
    kept = 4 * (counts["total"] if isinstance(config.adapter, NoAdapter) else counts["trainable"])
    if config.model.fresh is not None and not isinstance(config.adapter, NoAdapter):
        kept += 4 * (counts["total"] - counts["trainable"])
    stores = {store.folder: store for store, _ in mixed.parts} if mixed is not None else {}
    tokens = sum(path.stat().st_size for folder in stores for path in folder.iterdir())
    return {"kept": kept, "passing": 4 * CHECKPOINT * KEPT_CHECKPOINTS * counts["trainable"], "cache": tokens}


def _prepared(config: RunConfig, tokenizer: Any) -> Mixed:
    return preparing.prepare(config, preparing.writing(config, tokenizer), cache_folder(config), overlap.apart(config))


def _num_items(config: RunConfig) -> int:
    """The items of a cell's suite; cells of a grid share theirs."""
    if config.evaluation.kind == "none":
        return 0
    asking = dump(config) | {"seed": 0, "adapter": None, "optimizer": None, "trainer": None}
    return _counted(Hashed(json.dumps(asking, sort_keys=True), config))


@functools.cache
def _counted(of: Hashed) -> int:
    return len(suites.items(of.config))


@dataclass(frozen=True)
class Hashed:
    """A config that is remembered by what its suite depends on."""

    words: str
    config: RunConfig = field(compare=False)


if __name__ == "__main__":
    sys.exit(main())
