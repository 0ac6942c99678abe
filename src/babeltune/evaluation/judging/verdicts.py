"""Judgements → verdicts: one for each reply, from however many times and ways its judge was asked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from babeltune.evaluation.judging.protocols import PARTS, SCALES
from babeltune.judges import PAIRWISE
from babeltune.records import Verdict

Outcome = Literal["scored", "refused", "truncated", "unparsable", "unreachable"]


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
    """The verdict of one item, by part of the protocol. Every part needs a value; repeated ones are averaged.

    `facts` has `judgements`, the numbers of each part in the order asked, null for one without; for impact the mean of each
    rubric; for a pair `won`, `flipped` and `ratings` of both replies, see `_pair`.
    """
    said = [one for part in PARTS[protocol] for one in asked[part]]
    facts: dict[str, Any] = {"judgements": {part: [list(one.values) or None for one in asked[part]] for part in PARTS[protocol]}}
    lost = next((one for part in PARTS[protocol] if not _means(asked[part]) for one in asked[part]), None)
    text = "\n\n".join(one.text for one in said if one.text)
    if lost is not None:
        return Verdict(item, lost.outcome, None, text, facts | {"detail": lost.detail})
    means = {part: _means(asked[part]) for part in PARTS[protocol]}
    if protocol in PAIRWISE:
        facts |= _pair(means["given"], means["swapped"])
        return Verdict(item, "scored", SCALES[protocol] * facts["ratings"][0], text, facts)
    if len(means) > 1:
        facts |= {part: SCALES[protocol] * mean[0] for part, mean in means.items()}
    value = SCALES[protocol] * math.fsum(mean[0] for mean in means.values()) / len(means)
    return Verdict(item, "scored", value, text, facts)


def _means(judgements: Sequence[Judgement]) -> tuple[float, ...]:
    """Of each of the numbers, over the judgements that have them; empty when none has."""
    scored = [one.values for one in judgements if one.outcome == "scored"]
    return tuple(math.fsum(numbers) / len(numbers) for numbers in zip(*scored, strict=True))


def _pair(given: Sequence[float], swapped: Sequence[float]) -> dict[str, Any]:
    """`won`: 1 where ours is the better in both orders, 0 where the other is, else 0.5. `flipped`: the orders disagree.

    `ratings`: ours and the other's, each the mean of both orders.
    """
    first, second = _sign(given[0] - given[1]), _sign(swapped[1] - swapped[0])
    won = 0.5 + 0.5 * first if first == second else 0.5
    ratings = [(given[0] + swapped[1]) / 2, (given[1] + swapped[0]) / 2]
    return {"won": won, "flipped": first != second, "ratings": ratings}


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
