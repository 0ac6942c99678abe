"""Replies and reference losses → scores, over all items and for each language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from babeltune.errors import EvalError, nearest, problem
from babeltune.evaluation import metrics
from babeltune.evaluation.metrics import METRICS
from babeltune.options import RunConfig
from babeltune.records import Item, Reply, Score


def score(
    config: RunConfig,
    items: Sequence[Item],
    replies: Sequence[Reply],
    losses: Mapping[str, tuple[float, int]],
    written: Mapping[str, str],
) -> dict[str, Score]:
    """Every configured metric, then the loss, each over the whole suite and over each of its languages. The first is the score.

    `written` names the tokenizer and template: losses over other tokens are other losses.
    """
    answers = {reply.item: reply.text for reply in replies}
    groups = {"": list(items)}
    for item in items:
        groups.setdefault(f"_{item.language}", []).append(item)
    scores = []
    for metric in config.evaluation.metrics:
        scores += [_metric(f"{config.evaluation.name}/{metric}{name}", metric, group, answers) for name, group in groups.items()]
    scores += [_loss(f"{config.evaluation.name}/loss{name}", group, losses, written) for name, group in groups.items()]
    return {one.name: one for one in scores}


def _metric(name: str, metric: str, items: Sequence[Item], answers: Mapping[str, str]) -> Score:
    if metric not in METRICS:
        raise EvalError(problem("evaluation.metrics", repr(metric), f"some of {', '.join(METRICS)}", nearest(metric, METRICS)))
    rule = METRICS[metric]
    values = {
        item.id: rule.measure(answers[item.id], item.reference, item.language) if item.id in answers else None for item in items
    }
    languages = sorted({item.language for item in items})
    alike: dict[str, list[str]] = {}
    for language in languages:
        alike.setdefault(rule.signature(language), []).append(language)
    signature = " | ".join(f"{', '.join(names)}: {how}" for how, names in alike.items())
    return metrics.score(name, values, signature, rule.higher_is_better)


def _loss(name: str, items: Sequence[Item], losses: Mapping[str, tuple[float, int]], written: Mapping[str, str]) -> Score:
    measured = {item.id: losses[item.id] for item in items if item.id in losses}
    marks = "|".join(f"{part}:{digest[:8]}" for part, digest in sorted(written.items()))
    tokens = sum(count for _, count in measured.values())
    return Score(
        name=name,
        value=sum(total for total, _ in measured.values()) / tokens if tokens else None,
        n=len(measured),
        unscored=len(items) - len(measured),
        signature=f"nats per reference token, end mark included|mean:tokens|{marks}",
        higher_is_better=False,
        items={item: total / count for item, (total, count) in measured.items()},
    )


def reply_table(items: Sequence[Item], replies: Sequence[Reply]) -> tuple[list[str], list[list[Any]]]:
    """Questions, references and replies side by side, as columns and rows."""
    columns = ["item", "language", "category", "prompt", "reference", "reply", "finish"]
    rows = [
        [item.id, item.language, item.category, _asked(item), item.reference, reply.text, reply.finish]
        for item, reply in zip(items, replies, strict=True)
    ]
    return columns, rows


def _asked(item: Item) -> str:
    question = item.messages[-1]
    return f"{question.text}\n{question.input}" if question.input else question.text
