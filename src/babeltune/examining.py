"""A trained cell → its replies and scores. What is on disk is not made again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from babeltune import results
from babeltune.cells import Cell, cache_folder
from babeltune.config import dump
from babeltune.data.preparing import Writing
from babeltune.evaluation import overlap, scoring, suites
from babeltune.evaluation.answers import recorded
from babeltune.evaluation.choosing import choose
from babeltune.evaluation.generating import generate, reference_losses
from babeltune.evaluation.judging import deciding
from babeltune.evaluation.keeping import Kept
from babeltune.identity import judge_parts
from babeltune.modeling import adapters, loading, reuse
from babeltune.options import Accelerator, ExtendVocabularyStage, NoAdapter, RunConfig
from babeltune.records import Item, MixLedger, Reply, Score
from babeltune.training.tracking import Tracker

Tell = Callable[..., None]
"""Called as tell("progress", phase=..., done=..., total=..., note=...)."""

Answers = tuple[list[Reply], dict[str, tuple[float, int]]]
"""Replies, and of each item's reference the summed loss and its tokens."""


def judge(cell: Cell, tokenizer: Any, way: Writing, tracker: Tracker, tell: Tell) -> dict[str, Score]:
    """The scores of the trained cell on its suite; replies and scores that are on disk are not made again."""
    known = results.read_evaluation(cell.folder, cell.evaluation)
    if known is not None:
        return known
    config = cell.config
    folder = results.evaluation_folder(cell.folder, cell.evaluation)
    items = suites.items(config)
    compare(cell, config, way, items)
    answers = _answers(cell, folder, tokenizer, way, items, tell) if items else ([], {})
    return _scores(cell, items, answers, way.identity, tracker, tell)


def judge_answers(cell: Cell, tracker: Tracker, tell: Tell) -> dict[str, Score]:
    """The scores of answers that are there already. No model is loaded, so there are no losses."""
    suites.suite(cell.config).ready(cell.config)
    results.write_json(cell.folder / "trained.json", {"steps": 0, "ledger": asdict(MixLedger((), 0.0))})
    items = suites.items(cell.config)
    replies = suites.suite(cell.config).answers(cell.config, recorded(cell.config, items))
    results.write_replies(results.evaluation_folder(cell.folder, cell.evaluation) / "replies.jsonl", replies)
    return _scores(cell, items, (replies, {}), {}, tracker, tell)


def _scores(
    cell: Cell, items: list[Item], answers: Answers, written: Mapping[str, str], tracker: Tracker, tell: Tell
) -> dict[str, Score]:
    """Judge replies, and write the scores down. `written` is what tokenizer and template are known by."""
    config, (replies, losses) = cell.config, answers
    folder = results.evaluation_folder(cell.folder, cell.evaluation)
    scores: dict[str, Score] = {}
    if items:
        answered = scoring.answered(items, replies)
        judged = deciding.judge(config, answered, replies, cache_folder(config), functools.partial(_tell_judging, tell))
        if judged.verdicts:
            results.write_verdicts(folder / "verdicts.jsonl", judged.verdicts.values())
            results.write_json(folder / "judged.json", {"signature": judged.signature, **judged.facts})
        scores = scoring.score(config, items, replies, losses, written, judged)
        tracker.table("replies", *scoring.reply_table(answered, replies, judged.verdicts))
    results.write_json(folder / "items.json", [asdict(item) for item in items])
    asked = {group: dump(getattr(config, group)) for group in results.ASKED}
    results.write_json(folder / "asked.json", asked | {"judge": judge_parts(asked["judge"])})
    results.write_json(folder / "scores.json", {name: asdict(score) for name, score in scores.items()})
    return scores


def _answers(cell: Cell, folder: Path, tokenizer: Any, way: Writing, items: list[Item], tell: Tell) -> Answers:
    """Replies and reference losses. Those in the folder are not made again: only the judge was interrupted."""
    if (folder / "losses.json").exists():
        kept = results.read_json(folder / "losses.json")
        return results.read_replies(folder / "replies.jsonl"), {item: (total, count) for item, (total, count) in kept.items()}
    model = trained_model(cell, len(tokenizer))
    kept = Kept(folder / "replies.part.jsonl")
    answer = choose if suites.suite(cell.config).asks == "choice" else generate
    replies = suites.suite(cell.config).answers(cell.config, answer(model, tokenizer, items, cell.config, way, tell, kept))
    results.write_replies(folder / "replies.jsonl", replies)
    losses = reference_losses(model, [item for item in items if item.reference], cell.config, way)
    results.write_json(folder / "losses.json", losses)
    kept.end()
    return replies, losses


def _tell_judging(tell: Tell, done: int, total: int) -> None:
    tell("progress", phase="judging", done=done, total=total)


def compare(cell: Cell, config: RunConfig, way: Writing, items: list[Item]) -> None:
    """Write down what of the evaluation is in the training data."""
    held = overlap.report(config, way, cache_folder(config), items)
    if held is not None:
        folder = results.evaluation_folder(cell.folder, cell.evaluation)
        results.write_json(folder / "contamination.json", asdict(held) | {"label": held.label})


def trained_model(cell: Cell, vocabulary: int) -> Any:
    """The cell's model as anyone would load it: from its folder. A base that is in memory already is not read again."""
    config = cell.config
    if isinstance(config.stage, ExtendVocabularyStage) or (isinstance(config.adapter, NoAdapter) and config.data.sources):
        reuse.drop()
        model = loading.load_trained(config, cell.folder)
    else:
        base = reuse.load_base(config, cell.parent, vocabulary)
        model = adapters.load(base, cell.folder, config) if config.data.sources else base
        if config.model.adapter is not None:
            model = adapters.load_foreign(base, Path(config.model.adapter), vocabulary)
    return model.to("cuda") if config.trainer.accelerator is Accelerator.gpu and not _is_quantised(model) else model


def _is_quantised(model: Any) -> bool:
    return bool(getattr(model, "is_quantized", False) or getattr(getattr(model, "base_model", None), "is_quantized", False))
