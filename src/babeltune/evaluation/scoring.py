"""Replies and reference losses → scores, over all items and for each language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from babeltune.evaluation import metrics, suites
from babeltune.evaluation.judging.deciding import Judged
from babeltune.options import RunConfig
from babeltune.records import Item, Reply, Score, Verdict


def score(
    config: RunConfig,
    items: Sequence[Item],
    replies: Sequence[Reply],
    losses: Mapping[str, tuple[float, int]],
    written: Mapping[str, str],
    judged: Judged | None = None,
) -> dict[str, Score]:
    """What a judge gave, every configured metric, then the loss, each over the whole suite and its groups. The first is the score.

    A suite with scores of its own has those in the place of the judge's and the metrics'. `written` names the tokenizer and
    template: losses over other tokens are other losses.
    """
    answers = {reply.item: reply.text for reply in replies}
    groups = {"": list(items)}
    for item in items:
        groups.setdefault(f"_{item.language}", []).append(item)
    own = suites.suite(config).scores
    judged = judged or Judged()
    there = answered(items, replies)
    scores, about = judged.scores(config.evaluation.name, there, replies)
    if own is not None:
        scores = own(config, there, replies, judged.verdicts)
    scores = [_without_answer(score, items, replies) for score in scores]
    for metric in [] if own is not None else config.evaluation.metrics:
        rule = metrics.find(metric)
        scores += [metrics.over(f"{config.evaluation.name}/{metric}{name}", rule, group, answers) for name, group in groups.items()]
    if config.model.answers is None and any(item.reference and item.messages[-1].role != "text" for item in items):
        scores += [_loss(f"{config.evaluation.name}/loss{name}", group, losses, written) for name, group in groups.items()]
    known = {one.name for one in scores}
    return {one.name: one for one in [*scores, *(one for one in about if one.name not in known)]}


def answered(items: Sequence[Item], replies: Sequence[Reply]) -> list[Item]:
    """The items that have a reply."""
    known = {reply.item for reply in replies}
    return [item for item in items if item.id in known]


def _without_answer(score: Score, items: Sequence[Item], replies: Sequence[Reply]) -> Score:
    """A score made of the answered items, with the others counted: those of its category or language where it has one."""
    known = {reply.item for reply in replies}
    own = {group for item in items for group in (item.category, item.language) if group and score.name.endswith(f"_{group}")}
    missing = sum(item.id not in known and (not own or not own.isdisjoint((item.category, item.language))) for item in items)
    return replace(score, unscored=score.unscored + missing)


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


def reply_table(
    items: Sequence[Item], replies: Sequence[Reply], verdicts: Mapping[str, Verdict] | None = None
) -> tuple[list[str], list[list[Any]]]:
    """Questions, references, replies and what a judge said of them side by side, as columns and rows."""
    columns = ["item", "language", "category", "prompt", "reference", "reply", "finish"]
    rows: list[list[Any]] = [
        [item.id, item.language, item.category, _asked(item), item.reference, reply.text, reply.finish]
        for item, reply in zip(items, replies, strict=True)
    ]
    if verdicts:
        columns += ["verdict", "value"]
        rows = [[*row, verdicts[item.id].outcome, verdicts[item.id].value] for item, row in zip(items, rows, strict=True)]
    return columns, rows


def _asked(item: Item) -> str:
    question = item.messages[-1]
    return f"{question.text}\n{question.input}" if question.input else question.text
