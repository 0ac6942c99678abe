"""One cell, from its config to its result. This is the whole story; each line of `run` is a chapter elsewhere."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from babeltune import examining, planned, results
from babeltune.cells import Cell, at_hand, cache_folder, cell_of, parent_config
from babeltune.config import dump
from babeltune.data import lines, preparing
from babeltune.data.batching import Examples
from babeltune.data.joining import Joined
from babeltune.data.preparing import Mixed, Writing
from babeltune.evaluation import overlap, suites
from babeltune.examining import Tell
from babeltune.modeling import adapters, attention, extending, loading, merging, resizing, reuse
from babeltune.modeling.loss import check_exact
from babeltune.modeling.vocabulary import train_tokenizer
from babeltune.options import ExtendVocabularyStage, NoAdapter, PrepareStage, PretrainStage, RunConfig, Texts
from babeltune.records import Conversation, MixLedger, Score
from babeltune.results import RunResult
from babeltune.suites import NoSuite
from babeltune.training import fitting, memory
from babeltune.training.fitting import Trained
from babeltune.training.tracking import Tracker

log = logging.getLogger(__name__)


class Preempted(Exception):
    """The cell was asked to stop and can be taken up again."""


def run(cell: Cell | RunConfig, tell: Tell = lambda event, **facts: None) -> RunResult:
    """Train what is not trained, judge what is not judged, and return the cell's result.

    Safe to call again after any interruption: it goes on from what is in the cell's folder. Raises a BabelTuneError when the
    cell cannot be run, Preempted when it was asked to stop.
    """
    if isinstance(cell, RunConfig):
        cell = cell_of(cell)
    with _held(cell), _tracker(cell) as tracker:
        settle(cell)
        if isinstance(cell.config.stage, PrepareStage):
            return count(cell, tracker, tell)
        if cell.config.model.answers is not None:
            return conclude(cell, examining.judge_answers(cell, tracker, tell), tracker)
        if cell.parent is not None:
            if not (cell.parent / "model").is_dir():
                reuse.drop()  # it takes a base of its own
            merging.make_whole(cell.parent, cell.config.trainer)
        if isinstance(cell.config.stage, ExtendVocabularyStage) and not cell.is_trained:
            extend_vocabulary(cell, cell.config.stage, tell)
        tokenizer = _tokenizer(cell)
        way = preparing.writing(cell.config, tokenizer)
        suites.suite(cell.config).ready(cell.config)
        if not cell.is_trained:
            train(cell, tokenizer, way, tracker, tell)
        fitting.end_process_group()
        if _rank() != 0:
            raise SystemExit(0)  # training was shared; what is left is for the first process
        scores = examining.judge(cell, tokenizer, way, tracker, tell)
        return conclude(cell, scores, tracker)


def settle(cell: Cell) -> None:
    """Write down what was asked, and fix everything that numbers could depend on by accident."""
    import yaml
    from transformers.utils import logging as transformers_logging

    fitting.check_devices(cell.config.trainer)
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(cell.config.trainer.threads)
    torch.manual_seed(cell.config.seed)
    np.random.seed(cell.config.seed % 2**32)
    random.seed(cell.config.seed)
    if _rank() == 0:
        results.write_text(cell.folder / "config.yaml", yaml.safe_dump(dump(cell.config), sort_keys=False, allow_unicode=True))
        results.write_json(cell.folder / "identity.json", {"identity": cell.identity, "parts": cell.parts})


def count(cell: Cell, tracker: Tracker, tell: Tell) -> RunResult:
    """Clean and tokenise the mix and write down what is in it. Of the base only the tokenizer is needed."""
    tell("progress", phase="preparing", done=0, total=0)
    way = preparing.writing(cell.config, _tokenizer(cell))
    ledger = preparing.prepare(cell.config, way, cache_folder(cell.config)).ledger
    results.write_ledger(cell.folder / "ledger.json", ledger)
    results.write_json(cell.folder / "trained.json", {"steps": 0, "ledger": asdict(ledger)})
    tell("progress", phase="comparing with the evaluation", done=0, total=0)
    there = at_hand(cell.config)
    suite = dataclasses.replace(cell.config.evaluation, sources=there)
    asked = dataclasses.replace(
        cell.config, evaluation=suite if there or not cell.config.evaluation.sources else NoSuite(name="none")
    )
    examining.compare(cell, asked, way, suites.found(asked))
    results.write_json(results.evaluation_folder(cell.folder, cell.evaluation) / "scores.json", {})
    return conclude(cell, {}, tracker)


def extend_vocabulary(cell: Cell, stage: ExtendVocabularyStage, tell: Tell) -> None:
    """Give the base's tokenizer pieces of the mix's text, and the base rows for them; save both and say what they bring."""
    config = cell.config
    tell("progress", phase="reading", done=0, total=0)
    tokenizer = loading.load_tokenizer(config.model, cell.parent)
    text = lines.read(config, preparing.writing(config, tokenizer), cache_folder(config), overlap.apart(config))
    samples = text.samples(stage.measured_lines)
    tell("progress", phase="learning pieces", done=0, total=0)
    grown = extending.extend(tokenizer, text, samples, stage, config.model, config.seed)
    tell("progress", phase="resizing", done=0, total=0)
    reuse.drop()
    base = loading.load_base(config, cell.parent, len(tokenizer), as_saved=True)
    resizing.resize(base, tokenizer, grown, stage.new_rows, config.seed)

    def write(place: str) -> None:
        base.save_pretrained(place)
        grown.save(Path(place))

    results.publish_folder(write, cell.folder / "model")
    ledger = dataclasses.replace(text.ledger, epochs=1.0)
    results.write_ledger(cell.folder / "ledger.json", ledger)
    facts = {"steps": 0, "vocabulary": extending.measure(tokenizer, grown, samples), "ledger": asdict(ledger)}
    results.write_json(cell.folder / "trained.json", facts)


def train(cell: Cell, tokenizer: Any, way: Writing, tracker: Tracker, tell: Tell) -> None:
    """Prepare the mix, fit, and save what was trained. A mix of nothing leaves the base as it is."""
    config = cell.config
    if not config.data.sources:
        results.write_json(cell.folder / "trained.json", {"steps": 0, "ledger": asdict(MixLedger((), 0.0))})
        return
    tell("progress", phase="preparing", done=0, total=0)
    mixed = preparing.prepare(config, way, cache_folder(config), overlap.apart(config))
    memory.give_back()
    is_weighed = memory.reset_peak(config.trainer.accelerator)
    model = model_of(config, cell.parent, tokenizer, cell.folder)
    counts = adapters.audit(model, config)
    if _rank() == 0:
        _open(cell, mixed, counts)
        results.write_ledger(cell.folder / "ledger.json", mixed.ledger)
    computing = time.process_time()
    try:
        done = fitting.fit(
            model,
            examples_of(mixed, config),
            [taken.source for _, taken in mixed.parts],
            config,
            pad_id=pad_id(tokenizer),
            folder=cell.folder,
            parts=cell.parts,
            tracker=tracker,
            tell=tell,
        )
    except fitting.Stopped as stop:
        raise Preempted(str(stop)) from stop
    if done.is_first_rank:
        took = {
            "cpu_seconds": round(time.process_time() - computing, 2),
            "peak_bytes": memory.peak_bytes(config.trainer.accelerator) if is_weighed else None,
            "plan": planned.kept(cache_folder(config), cell.identity),
        }
        adapters.save(model, tokenizer, cell.folder, config)
        facts = _facts(done, config) | took | {"parameters": counts, "ledger": asdict(mixed.ledger)}
        results.write_json(cell.folder / "trained.json", facts)
        shutil.rmtree(cell.folder / "checkpoints", ignore_errors=True)  # nothing is left to go on with


def model_of(config: RunConfig, parent: Path | None, tokenizer: Any, folder: Path) -> Any:
    """The model to train: its base, of which it is seen that packed rows are exact, with its adapter. A fresh base is kept."""
    base = reuse.load_base(config, parent, len(tokenizer))
    check_exact(base, config.data.max_tokens, attention.choose(base, config))
    if config.model.fresh is not None and not isinstance(config.adapter, NoAdapter):
        loading.keep_fresh(base, tokenizer, folder)
    return adapters.attach(base, config)


def examples_of(mixed: Mixed, config: RunConfig) -> Examples:
    """The mix as it is trained on: rows as they are, or texts joined into blocks."""
    parts = [(store, store.pool[taken.indices], taken.source) for store, taken in mixed.parts]
    if not isinstance(config.stage, PretrainStage) or config.stage.texts is Texts.apart:
        return Examples([(store, rows) for store, rows, _ in parts])
    joined = [Joined(store, rows, config.data.max_tokens, f"{config.seed}/{source}") for store, rows, source in parts]
    return Examples([(blocks, np.arange(len(blocks), dtype=np.int32)) for blocks in joined])


def conclude(cell: Cell, scores: dict[str, Score], tracker: Tracker) -> RunResult:
    """Put everything that a table needs into `result.json`, and mirror it."""
    facts = results.read_json(cell.folder / "trained.json")
    ledger = facts.pop("ledger")
    held = results.read_contamination(cell.folder, cell.evaluation)
    judged = results.read_judged(cell.folder, cell.evaluation)
    ledger = ledger if held is None else ledger | {"contamination": held}
    said = [
        *results.labels(cell.config, ledger["standins"]),
        *_inherited(cell),
        *([held["label"]] if held and held["label"] else []),
        *([judged["label"]] if judged and judged["label"] else []),
    ]
    labels = tuple(dict.fromkeys(said))
    values = {f"score/{name}": score.value for name, score in scores.items()}
    tracker.summarise(values | {"ledger": ledger, "training": facts, "labels": list(labels)})
    result = RunResult(
        cell=cell.folder.name,
        identity=cell.identity,
        evaluation=cell.evaluation,
        config=dump(cell.config),
        scores=scores,
        ledger=ledger,
        training=facts,
        labels=labels,
        versions=results.versions(),
        tracking=tracker.where,
    )
    results.write_result(cell.folder, result)
    measured = [f"{score.name} {score.value:.2f} (n={score.n})" for score in scores.values() if score.value is not None]
    log.info("%s: %s", cell.folder, measured[0] if measured else "not judged")
    return result


def _inherited(cell: Cell) -> tuple[str, ...]:
    """What a reader must know about the cell that the base model comes from."""
    parent = None if cell.parent is None else results.read_result(cell.parent)
    return () if parent is None else parent.labels


@contextlib.contextmanager
def _held(cell: Cell) -> Iterator[None]:
    """Of a cell's processes the first one holds the cell, for all."""
    with results.lock(cell.folder) if _rank() == 0 else contextlib.nullcontext():
        yield


def _tracker(cell: Cell) -> Tracker:
    config = cell.config
    return Tracker(
        cell.folder,
        config.logger if _rank() == 0 else dataclasses.replace(config.logger, kind="none"),
        run_id=cell.identity[:16],
        name=cell.folder.name,
        group=config.grid.name or config.data.name,
        settings={"config": dump(config), "identity": cell.identity},
    )


def _tokenizer(cell: Cell) -> Any:
    """Loaded, or learned from the mix; a learned one is kept in the cell's folder, so that it is learned once."""
    config = cell.config
    parent = parent_config(config)
    if parent is not None and config.model.tokenizer is None and isinstance(config.stage, PrepareStage):
        return _tokenizer(cell_of(parent))  # it is there before the parent is trained
    if isinstance(config.stage, ExtendVocabularyStage):
        return loading.load_tokenizer(dataclasses.replace(config.model, tokenizer=None), cell.folder)
    if config.model.tokenizer != "train":
        return reuse.load_tokenizer(config.model, cell.parent)
    folder = cell.folder / "tokenizer"
    if not folder.exists():
        results.publish_folder(train_tokenizer(texts_of(config), config.model.vocabulary).save_pretrained, folder)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))


def texts_of(config: RunConfig) -> Iterator[str]:
    """Everything that the conversations of a mix say."""
    for source in config.data.sources.values():
        for row in preparing.conversations(source, Path(config.paths.data), config.data.max_bad_fraction):
            if isinstance(row, Conversation):
                yield from (message.text for message in row.messages)


def pad_id(tokenizer: Any) -> int:
    """What fills rows up: the end mark where a tokenizer has no padding of its own."""
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)


def _open(cell: Cell, mixed: Mixed, counts: dict[str, int]) -> None:
    """The facts a run opens with."""
    config = cell.config
    log.info("cell %s in %s", cell.identity[:8], cell.folder)
    log.info("parameters: %s trained of %s", f"{counts['trainable']:,}", f"{counts['total']:,}")
    for row in mixed.ledger.rows:
        found = f"asked {row.asked}: {row.taken} rows taken of {row.usable} usable, {row.found} found, {row.heldout} held out"
        cuts = f"{row.cut_answers} answers cut, {row.dropped_turns} turns left out"
        tokens = f"{row.tokens:,} tokens ({row.token_share:.2%} of the mix), {row.target_tokens:,} to learn"
        log.info("%s (%s): %s, dropped %s, %s; %s", row.source, row.language, found, dict(row.dropped) or "none", cuts, tokens)
    log.info("global batch: %d examples over %d process(es)", config.optimizer.global_batch, config.trainer.processes)


def _facts(done: Trained, config: RunConfig) -> dict[str, Any]:
    """What tables and readers may want to know about a training."""
    return {
        "steps": done.steps,
        "resumed_at": done.first_step,
        "seconds": round(done.seconds, 2),
        "first_loss": done.losses[0] if done.losses else None,
        "last_loss": done.losses[-1] if done.losses else None,
        "tokens": done.tokens,
        "tokens_per_second": round(done.tokens / done.seconds, 1),
        "devices": config.trainer.processes,
        "trainer": config.trainer.name,
    }


def _rank() -> int:
    """Which of a cell's processes this is."""
    return int(os.environ.get("RANK", "0"))
