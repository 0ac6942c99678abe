"""Verdicts → scores: means over what was scored, and what tells how far the judge can be trusted.

`agreement` and `disagreement` are of judgements of the same question, `win_rate`, `flip_rate` and `longer_wins` of pairs,
`length_correlation` of the value and the reply's length in characters.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations

from babeltune.evaluation import metrics
from babeltune.evaluation.judging.wording import repaired
from babeltune.records import Item, Reply, Score, Verdict

COVERAGE = 0.98
"""Share of items that a judge should score; below it, tables say so."""


def means(
    suite: str,
    items: Sequence[Item],
    verdicts: Mapping[str, Verdict],
    signature: str,
    metric: str = "score",
    value: Callable[[Verdict], float | None] = lambda verdict: verdict.value,
) -> list[Score]:
    """The mean over all items as `suite/metric`, and over each category as `suite/metric_category`."""
    groups: dict[str, list[Item]] = {"": list(items)}
    for item in items:
        if item.category:
            groups.setdefault("_" + slug(item.category), []).append(item)
    return [
        metrics.score(f"{suite}/{metric}{name}", {item.id: _value(verdicts.get(item.id), value) for item in group}, signature)
        for name, group in groups.items()
    ]


def slug(category: str) -> str:
    """A category as it stands in a score's name.

    >>> slug("Open\\u00a0QA")
    'open_qa'
    """
    return repaired(category).replace(" ", "_").replace("-", "_")


def _value(verdict: Verdict | None, value: Callable[[Verdict], float | None]) -> float | None:
    return None if verdict is None or verdict.outcome != "scored" else value(verdict)


def fact(name: str) -> Callable[[Verdict], float | None]:
    """What a verdict has among its facts."""
    return lambda verdict: verdict.facts.get(name)


def own(suite: str, protocol: str, items: Sequence[Item], verdicts: Mapping[str, Verdict], signature: str) -> list[Score]:
    """The scores of a suite that has none of its own: the judge's value; for impact each rubric too."""
    found = means(suite, items, verdicts, signature)
    if protocol == "impact":
        for aspect in ("relevance", "coherence"):
            found += means(suite, items, verdicts, signature, aspect, fact(aspect))
    return found


def about(
    suite: str, items: Sequence[Item], replies: Sequence[Reply], verdicts: Mapping[str, Verdict], signature: str
) -> list[Score]:
    """What tells how far the judge can be trusted, as scores that no table has for its main one."""
    scored = {name: verdict for name, verdict in verdicts.items() if verdict.outcome == "scored"}
    lengths = {reply.item: len(reply.text) for reply in replies}
    found = [*_agreement(suite, verdicts, signature)]
    if any("won" in verdict.facts for verdict in scored.values()):
        found += _pairs(suite, items, scored, verdicts, signature)
    values = [(lengths[name], verdict.value) for name, verdict in scored.items() if verdict.value is not None and name in lengths]
    found.append(_single(f"{suite}/length_correlation", _correlation(values), len(values), f"pearson|characters|{signature}"))
    return found


def _pairs(
    suite: str, items: Sequence[Item], scored: Mapping[str, Verdict], verdicts: Mapping[str, Verdict], signature: str
) -> list[Score]:
    def rate(metric: str, value: Callable[[Verdict], float | None], higher_is_better: bool = True) -> Score:
        found = {item.id: _value(verdicts.get(item.id), value) for item in items}
        return metrics.score(f"{suite}/{metric}", found, signature, higher_is_better)

    found = [rate("win_rate", lambda verdict: 100.0 * verdict.facts["won"])]
    if all("flipped" in verdict.facts for verdict in scored.values()):
        found.append(rate("flip_rate", lambda verdict: 100.0 * verdict.facts["flipped"], higher_is_better=False))
    if all("characters" in verdict.facts for verdict in scored.values()):
        longer = {name: 100.0 * won for name, verdict in scored.items() if (won := _longer_won(verdict)) is not None}
        how = f"share of decided pairs of unlike length|characters|{signature}"
        found.append(metrics.score(f"{suite}/longer_wins", longer, how))
    return found


def _longer_won(verdict: Verdict) -> bool | None:
    """Whether the longer of two replies won; None for a tie, or two of the same length."""
    won, (ours, theirs) = verdict.facts["won"], verdict.facts["characters"]
    return None if won == 0.5 or ours == theirs else (won == 1.0) == (ours > theirs)


def _agreement(suite: str, verdicts: Mapping[str, Verdict], signature: str) -> Iterator[Score]:
    equal: dict[str, float | None] = {}
    apart: dict[str, float | None] = {}
    for name, verdict in verdicts.items():
        pairs = [pair for part in verdict.facts.get("judgements", {}).values() for pair in _repeated(part)]
        if pairs:
            equal[name] = 100.0 * statistics.fmean(first == second for first, second in pairs)
            distances = [abs(x - y) for first, second in pairs for x, y in zip(first, second, strict=True)]
            apart[name] = statistics.fmean(distances)
    if equal:
        yield metrics.score(f"{suite}/agreement", equal, f"share of equal judgements of one question|{signature}")
        yield metrics.score(f"{suite}/disagreement", apart, f"mean distance of judgements|{signature}", higher_is_better=False)


def _repeated(part: Iterable[Sequence[float] | None]) -> Iterator[tuple[Sequence[float], Sequence[float]]]:
    return combinations([values for values in part if values is not None], 2)


def _single(name: str, value: float | None, n: int, signature: str) -> Score:
    return Score(name, value, n, 0, signature)


def _correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """None where one of the two never changes."""
    if len(pairs) < 3 or any(len(set(one)) < 2 for one in zip(*pairs, strict=True)):
        return None
    value = statistics.correlation(*zip(*pairs, strict=True))
    return value if math.isfinite(value) else None


def outcomes(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """How many verdicts came out how, the frequent ones first."""
    return dict(Counter(verdict.outcome for verdict in verdicts).most_common())


def label(counts: Mapping[str, int]) -> str:
    """What a reader must know of a judge that scored less than COVERAGE; empty for one that scored more."""
    total = sum(counts.values())
    scored = counts.get("scored", 0)
    if not total or scored >= COVERAGE * total:
        return ""
    others = ", ".join(f"{count:,} {name}" for name, count in counts.items() if name != "scored")
    return f"the judge scored {scored / total:.1%} of {total:,} replies ({others})"
