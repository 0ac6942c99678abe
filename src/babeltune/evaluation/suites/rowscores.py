"""The scores of suites of rows: what a judge said, over categories and their means as each paper has them, and metrics."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from babeltune.evaluation import metrics
from babeltune.evaluation.judging.scores import slug
from babeltune.options import RunConfig
from babeltune.records import Item, Reply, Score, Verdict
from babeltune.suites import RowsSuite

log = logging.getLogger(__name__)

Values = Mapping[str, float | None]


def scores(config: RunConfig, items: Sequence[Item], replies: Sequence[Reply], verdicts: Mapping[str, Verdict]) -> list[Score]:
    """The judge's scores, then the metrics of the references there are.

    Without verdicts a suite that has metrics is scored by them alone; one without has its judge's score, with nothing scored.
    """
    suite = config.evaluation
    assert isinstance(suite, RowsSuite)
    measured = _measured(suite, items, replies)
    if not verdicts and suite.judged_by:
        bare = sum(not item.reference for item in items)
        log.info("%s: no judge; %d of %d items have no reference either, and have no score", suite.name, bare, len(items))
    if verdicts or not measured:
        return [*_judged(suite, items, verdicts, _signature(config, suite, items, verdicts)), *measured]
    return measured


def _signature(config: RunConfig, suite: RowsSuite, items: Sequence[Item], verdicts: Mapping[str, Verdict]) -> str:
    if not verdicts:
        return "not judged"
    from babeltune.evaluation.judging import deciding

    return deciding.signature(config, items) + _cut(suite)


def _cut(suite: RowsSuite) -> str:
    return f"|answer ends at {suite.answer_ends!r}" if suite.answer_ends else ""


def _judged(suite: RowsSuite, items: Sequence[Item], verdicts: Mapping[str, Verdict], signature: str) -> list[Score]:
    if not suite.aspects:
        values = {item.id: _value(verdicts.get(item.id)) for item in items}
        return _by_category(suite, items, values, signature, suite.macros, "total", suite.category_score)
    found: list[Score] = []
    names = sorted({item.category for item in items})
    for aspect in suite.aspects:
        values = {item.id: _value(verdicts.get(item.id), aspect) for item in items}
        category_score = f"{aspect}_{suite.category_score}"
        found += _by_category(suite, items, values, signature, {aspect: names}, aspect, category_score)
    return found


def _value(verdict: Verdict | None, aspect: str = "") -> float | None:
    if verdict is None or verdict.outcome != "scored":
        return None
    return verdict.facts.get(aspect) if aspect else verdict.value


def _by_category(
    suite: RowsSuite,
    items: Sequence[Item],
    values: Values,
    signature: str,
    macros: Mapping[str, Sequence[str]],
    total: str,
    category_score: str,
) -> list[Score]:
    """The macros, or without any the mean over all items; then each category and each pool of categories that has items."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.category, []).append(item)
    pooled = {name: [item for one in parts for item in groups.get(one, [])] for name, parts in suite.pools.items()}
    means = {
        name: metrics.score(
            f"{suite.name}/{category_score.format(category=slug(name))}", {item.id: values[item.id] for item in group}, signature
        )
        for name, group in sorted((groups | pooled).items())
        if name and group
    }
    if macros:
        main = [macro(f"{suite.name}/{name}", [means.get(one) for one in parts]) for name, parts in macros.items()]
    else:
        main = [metrics.score(f"{suite.name}/{total}", values, signature)]
    return [*main, *means.values()]


def macro(name: str, parts: Sequence[Score | None]) -> Score:
    """The mean of the means of categories. A category with nothing scored is not in it, and the signature says how many are.

    An item of a category of n_k items, among n items of K categories, has its value times n / (K n_k): so the mean of the items is
    the score.
    """
    there = [one for one in parts if one is not None]
    known = [(one, one.value) for one in there if one.value is not None]
    n = sum(one.n for one, _ in known)
    return Score(
        name=name,
        value=math.fsum(value for _, value in known) / len(known) if known else None,
        n=n,
        unscored=sum(one.unscored for one in there),
        signature=f"mean of {len(known)} of {len(parts)} categories|{' | '.join(dict.fromkeys(one.signature for one in there))}",
        items={item: value * n / (len(known) * one.n) for one, _ in known for item, value in one.items.items()},
    )


def _measured(suite: RowsSuite, items: Sequence[Item], replies: Sequence[Reply]) -> list[Score]:
    """Every metric over all items; those without choices in their name also over each language and each category of several."""
    answers = {reply.item: reply.text for reply in replies}
    apart: dict[str, list[Item]] = {}
    for mark in ("language", "category"):
        if len({getattr(item, mark) for item in items}) > 1:
            for item in items:
                apart.setdefault(f"_{slug(getattr(item, mark))}", []).append(item)
    found = []
    for metric in suite.metrics:
        rule, name = metrics.find(metric), suite.score_names.get(metric, metric)
        groups = {"": list(items)} | (apart if ":" not in name else {})
        made = [metrics.over(f"{suite.name}/{name}{mark}", rule, group, answers) for mark, group in groups.items()]
        found += [replace(one, signature=one.signature + _cut(suite)) for one in made]
    return found
