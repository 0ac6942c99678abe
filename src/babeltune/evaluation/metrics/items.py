"""A metric over the items of a suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from babeltune.evaluation.metrics.measure import Metric, score
from babeltune.records import Item, Score


def over(name: str, metric: Metric, items: Sequence[Item], answers: Mapping[str, str]) -> Score:
    """The mean over the items that have a reference and an answer; the others are counted as unscored.

    An item with `references` among its facts is compared with all of them.
    """
    values = {
        item.id: metric.against(answers[item.id], references, item.language) if item.id in answers and any(references) else None
        for item, references in ((item, item.facts.get("references", [item.reference])) for item in items)
    }
    alike: dict[str, list[str]] = {}
    for language in sorted({item.language for item in items}):
        alike.setdefault(metric.signature(language), []).append(language)
    signature = " | ".join(f"{', '.join(names)}: {how}" for how, names in alike.items())
    if any("references" in item.facts for item in items):
        signature += f"|several references:{'joint' if metric.joint else 'best'}"
    return score(name, values, signature, metric.higher_is_better)
