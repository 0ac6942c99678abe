"""One cell, from its config to its result. This is the whole story; each line of `run` is a chapter elsewhere."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import random
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from babeltune import results
from babeltune.cells import Cell, cache_folder, cell_of
from babeltune.config import dump
from babeltune.data import preparing
from babeltune.data.batching import Examples
from babeltune.data.preparing import Mixed, Writing
from babeltune.evaluation import scoring, suites
from babeltune.evaluation.generating import generate, reference_losses
from babeltune.modeling import adapters, loading
from babeltune.modeling.loss import check_exact
from babeltune.modeling.vocabulary import train_tokenizer
from babeltune.options import Accelerator, NoAdapter, RunConfig
from babeltune.records import Conversation, MixLedger, Score
from babeltune.results import RunResult, publish_folder
from babeltune.training import fitting
from babeltune.training.tracking import Tracker

log = logging.getLogger(__name__)

Tell = Callable[..., None]
"""Called as tell("progress", phase=..., done=..., total=..., note=...)."""


class Preempted(Exception):
    """The cell was asked to stop and can be taken up again."""


def run(cell: Cell | RunConfig, tell: Tell = lambda event, **facts: None) -> RunResult:
    """Train what is not trained, judge what is not judged, and return the cell's result.

    Safe to call again after any interruption: it goes on from what is in the cell's folder. Raises a BabelTuneError when the
    cell cannot be run, Preempted when it was asked to stop.
    """
    if isinstance(cell, RunConfig):
        cell = cell_of(cell)
    with results.lock(cell.folder) if _rank() == 0 else contextlib.nullcontext():
        settle(cell)
        tokenizer = _tokenizer(cell)
        way = preparing.writing(cell.config, tokenizer)
        tracker = _tracker(cell)
        try:
            if not cell.is_trained:
                train(cell, tokenizer, way, tracker, tell)
            fitting.end_process_group()
            if _rank() != 0:
                raise SystemExit(0)
            scores = judge(cell, tokenizer, way, tracker, tell)
            result = conclude(cell, scores, tracker)
        except BaseException:
            tracker.close(1)
            raise
        tracker.close()
        return result


def settle(cell: Cell) -> None:
    """Write down what was asked, and fix everything that numbers could depend on by accident."""
    import yaml

    torch.set_num_threads(cell.config.trainer.threads)
    torch.manual_seed(cell.config.seed)
    np.random.seed(cell.config.seed % 2**32)  # noqa: NPY002 libraries that draw from the global generator
    random.seed(cell.config.seed)
    if _rank() == 0:
        results.write_text(cell.folder / "config.yaml", yaml.safe_dump(dump(cell.config), sort_keys=False, allow_unicode=True))
        results.write_json(cell.folder / "identity.json", {"identity": cell.identity, "parts": cell.parts})


def train(cell: Cell, tokenizer: Any, way: Writing, tracker: Tracker, tell: Tell) -> None:
    """Prepare the mix, fit, and save what was trained. A mix of nothing leaves the base as it is."""
    config = cell.config
    if not config.data.sources:
        results.write_json(cell.folder / "trained.json", {"steps": 0, "ledger": asdict(MixLedger((), 0.0))})
        return
    tell("progress", phase="preparing", done=0, total=0)
    mixed = preparing.prepare(config, way, cache_folder(config))
    base = loading.load_base(config, cell.parent, len(tokenizer))
    check_exact(base)
    model = adapters.attach(base, config)
    counts = adapters.audit(model, config)
    examples = Examples([(store, store.pool[taken.indices]) for store, taken in mixed.parts])
    _open(cell, mixed, counts)
    if _rank() == 0:
        results.write_ledger(cell.folder / "ledger.json", mixed.ledger)
    try:
        done = fitting.fit(
            model, examples, [taken.source for _, taken in mixed.parts], config,
            pad_id=_pad(tokenizer), folder=cell.folder, identity=cell.identity, tracker=tracker, tell=tell,
        )
    except fitting.Stopped as stop:
        raise Preempted(str(stop)) from stop
    if done.is_first_rank:
        adapters.save(model, tokenizer, cell.folder, config)
        facts = {
            "steps": done.steps,
            "resumed_at": done.first_step,
            "seconds": round(done.seconds, 2),
            "first_loss": done.losses[0] if done.losses and done.first_step == 0 else None,
            "last_loss": done.losses[-1] if done.losses else None,
            "tokens": done.tokens,
            "tokens_per_second": round(done.tokens / done.seconds, 1),
            "parameters": counts,
            "devices": config.trainer.devices,
            "trainer": config.trainer.name,
            "ledger": asdict(mixed.ledger),
        }
        results.write_json(cell.folder / "trained.json", facts)


def judge(cell: Cell, tokenizer: Any, way: Writing, tracker: Tracker, tell: Tell) -> dict[str, Score]:
    """The scores of the trained cell on its suite; replies and scores that are on disk are not made again."""
    known = results.read_evaluation(cell.folder, cell.evaluation)
    if known is not None:
        return known
    config = cell.config
    folder = cell.folder / "evaluations" / cell.evaluation[:8]
    items = suites.items(config)
    scores: dict[str, Score] = {}
    if items:
        model = _trained_model(cell, len(tokenizer))
        replies = generate(model, tokenizer, items, config, way, tell)
        results.write_replies(folder / "replies.jsonl", replies)
        losses = reference_losses(model, items, config, way)
        scores = scoring.score(config, items, replies, losses, way.identity)
        tracker.table("replies", *scoring.reply_table(items, replies))
    results.write_json(folder / "items.json", [asdict(item) for item in items])
    results.write_json(folder / "scores.json", {name: asdict(score) for name, score in scores.items()})
    return scores


def conclude(cell: Cell, scores: dict[str, Score], tracker: Tracker) -> RunResult:
    """Put everything that a table needs into `result.json`, and mirror it."""
    facts = results.read_json(cell.folder / "trained.json")
    result = RunResult(
        cell=cell.folder.name,
        identity=cell.identity,
        evaluation=cell.evaluation,
        config=dump(cell.config),
        scores=scores,
        ledger=facts.pop("ledger"),
        training=facts,
        labels=labels(cell.config, cell.folder),
        versions=versions(),
        tracking=tracker.where,
    )
    tracker.summarise({f"score/{name}": score.value for name, score in scores.items()} | {"ledger": result.ledger, "labels": list(result.labels)})
    results.write_result(cell.folder, result)
    shown = next((f"{score.name} {score.value:.2f} (n={score.n})" for score in scores.values() if score.value is not None), "not judged")
    log.info("%s: %s", cell.folder, shown)
    return result


def labels(config: RunConfig, folder: Path) -> tuple[str, ...]:
    """What a reader must know before comparing this cell with a paper."""
    said = []
    if config.scale.name != "paper":
        said.append(f"scale={config.scale.name}")
    if config.scale.standins and config.model.standin:
        said.append(f"{config.model.standin} in place of {config.model.name}")
    said += results.read_json(folder / "trained.json")["ledger"]["standins"]
    return tuple(said)


def versions() -> dict[str, str]:
    """What computed the numbers."""
    names = ("babeltune", "torch", "lightning", "transformers", "peft", "datasets", "sacrebleu")
    return {name: importlib.metadata.version(name) for name in names}


def _tokenizer(cell: Cell) -> Any:
    """Loaded, or learned from the mix; a learned one is kept in the cell's folder, so that it is learned once."""
    config = cell.config
    if config.model.tokenizer != "train":
        return loading.load_tokenizer(config.model, cell.parent)
    folder = cell.folder / "tokenizer"
    if not folder.exists():
        root = Path(config.paths.data)
        texts = (
            message.text
            for source in config.data.sources.values()
            for row in preparing.conversations(source, root, config.data.max_bad_fraction)
            if isinstance(row, Conversation)
            for message in row.messages
        )
        tokenizer = train_tokenizer(texts, config.model.vocabulary)
        publish_folder(tokenizer.save_pretrained, folder)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))


def _trained_model(cell: Cell, vocabulary: int) -> Any:
    """The cell's model as anyone would load it: from its folder."""
    config = cell.config
    if isinstance(config.adapter, NoAdapter) and config.data.sources:
        model = loading.load_trained(config, cell.folder)
    else:
        base = loading.load_base(config, cell.parent, vocabulary)
        model = adapters.load(base, cell.folder, config) if config.data.sources else base
    return model.to("cuda") if config.trainer.accelerator is Accelerator.gpu and not _is_quantised(model) else model


def _is_quantised(model: Any) -> bool:
    return bool(getattr(model, "is_quantized", False) or getattr(getattr(model, "base_model", None), "is_quantized", False))


def _tracker(cell: Cell) -> Tracker:
    config = cell.config
    quiet = dump(config.logger) | {"kind": "none"} if _rank() else None
    logger = type(config.logger)(**quiet) if quiet else config.logger
    group = config.grid.name or config.data.name
    return Tracker(
        cell.folder, logger, run_id=f"{cell.identity[:16]}", name=cell.folder.name, group=group,
        settings={"config": dump(config), "identity": cell.identity},
    )


def _open(cell: Cell, mixed: Mixed, counts: dict[str, int]) -> None:
    """The facts a run opens with."""
    config, ledger = cell.config, mixed.ledger
    log.info("cell %s in %s", cell.identity[:8], cell.folder)
    log.info("parameters: %s trained of %s", f"{counts['trainable']:,}", f"{counts['total']:,}")
    for row in ledger.rows:
        log.info(
            "%s (%s): %d rows taken of %d usable, %d found, %d held out, dropped %s; %s tokens, %s to learn",
            row.source, row.language, row.taken, row.usable, row.found, row.heldout, dict(row.dropped) or "none",
            f"{row.tokens:,}", f"{row.target_tokens:,}",
        )
    log.info("global batch: %d examples over %d process(es)", config.optimizer.global_batch, config.trainer.devices)


def _pad(tokenizer: Any) -> int:
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)


def _rank() -> int:
    """Which of a cell's processes this is; the first one holds the cell and writes for all."""
    return int(os.environ.get("RANK", "0"))
