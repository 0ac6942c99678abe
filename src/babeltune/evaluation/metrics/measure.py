"""What a metric is, and how the values of items become a score."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from babeltune.errors import EvalError, problem
from babeltune.records import Score


@dataclass(frozen=True, slots=True)
class Metric:
    """One way to compare a reply with its reference."""

    measure: Callable[[str, str, str], float]
    """Reply, reference and language to 0..100, where the reference itself gets 100 and an empty reply 0. A metric that counts
    runs of n tokens, as NLTK does, gives that 100 to references of n tokens or more."""
    signature: Callable[[str], str]
    """Language to how it is measured; equal signatures mean comparable scores."""
    higher_is_better: bool = True
    joint: Callable[[str, Sequence[str], str], float] | None = None
    """Reply, several references and language, where the metric has a rule for them; None for the best of the references."""

    def against(self, reply: str, references: Sequence[str], language: str) -> float:
        """The value against one reference or several."""
        if len(references) > 1 and self.joint is not None:
            return self.joint(reply, references, language)
        return max(self.measure(reply, reference, language) for reference in references)


def score(name: str, values: Mapping[str, float | None], signature: str, higher_is_better: bool = True) -> Score:
    """The mean of the items that have a value. None is an item that could not be scored: it is counted, and no zero."""
    items = {item: value for item, value in values.items() if value is not None}
    broken = sorted(item for item, value in items.items() if not math.isfinite(value))
    if broken:
        raise EvalError(problem(name, f"no number for item {broken[0]}", "a number", "None for what cannot be scored"))
    return Score(
        name=name,
        value=math.fsum(items.values()) / len(items) if items else None,
        n=len(items),
        unscored=len(values) - len(items),
        signature=signature,
        higher_is_better=higher_is_better,
        items=items,
    )
