"""Judgements → verdicts: one for each reply, from however many times and ways its judge was asked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from babeltune.evaluation.judging.protocols import PARTS, SCALES
from babeltune.judges import PAIRWISE
from babeltune.records import Verdict

Outcome = Literal["scored", "refused", "truncated", "unparsable", "unreachable"]
Means = Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came of asking once."""

    outcome: Outcome
    values: tuple[float, ...] = ()
    """The judge's own numbers, one for each reply in the order shown; empty when not scored."""
    text: str = ""
    detail: str = ""
    """Why there is no value, for people."""


def combine(protocol: str, item: str, asked: Mapping[str, Sequence[Judgement]]) -> Verdict:
    """The verdict of one item from its judgements by part of the protocol. Every part that was asked needs a value; repeated
    ones are averaged.

    All numbers are on the score's scale. `facts` has `judgements`: of each part, in the order asked, the numbers or null; for
    impact the mean of each rubric; for a pair see `_pair`.
    """
    parts = [part for part in PARTS[protocol] if part in asked]
    scale = SCALES[protocol]
    facts: dict[str, Any] = {
        "judgements": {part: [[scale * value for value in one.values] or None for one in asked[part]] for part in parts}
    }
    means = {part: _means(asked[part], scale) for part in parts}
    text = "\n\n".join(one.text for part in parts for one in asked[part] if one.text)
    lost = next((asked[part][0] for part in parts if not means[part]), None)
    if lost is not None:
        return Verdict(item, lost.outcome, None, text, facts | {"detail": lost.detail})
    if protocol in PAIRWISE:
        facts |= _pair(means)
        return Verdict(item, "scored", facts["ratings"][0], text, facts)
    if len(means) > 1:
        facts |= {part: mean[0] for part, mean in means.items()}
    return Verdict(item, "scored", _mean(mean[0] for mean in means.values()), text, facts)


def _means(judgements: Sequence[Judgement], scale: float) -> tuple[float, ...]:
    """Of each of the numbers, over the judgements that have them; empty when none has."""
    scored = [one.values for one in judgements if one.outcome == "scored"]
    return tuple(scale * _mean(numbers) for numbers in zip(*scored, strict=True))


def _pair(means: Means) -> dict[str, Any]:
    """`ratings`: of our reply and the other, each the mean of the orders asked. `won`: 1 where ours is the better in each order,
    0 where the other is, else 0.5. `flipped`, where both orders were asked: they do not agree on it."""
    orders = [means["given"]] if "given" in means else []
    orders += [(means["swapped"][1], means["swapped"][0])] if "swapped" in means else []
    signs = {(ours > theirs) - (ours < theirs) for ours, theirs in orders}
    won = 0.5 + 0.5 * signs.copy().pop() if len(signs) == 1 else 0.5
    flipped = {"flipped": len(signs) > 1} if len(orders) == 2 else {}
    return {"ratings": [_mean(ratings) for ratings in zip(*orders, strict=True)], "won": won} | flipped


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values)
