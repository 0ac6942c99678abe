"""How near a reply comes to its reference, in Chinese, Vietnamese and English alike.

`library` has the metrics of every suite, whose tokens follow the language; `variants` those that papers compute in several ways,
with the choice in the metric's name.
"""

from __future__ import annotations

from babeltune.errors import EvalError, nearest, problem
from babeltune.evaluation.metrics import variants
from babeltune.evaluation.metrics.items import over
from babeltune.evaluation.metrics.library import (
    METRICS as OWN,
)
from babeltune.evaluation.metrics.library import (
    TextTokens,
    corpus_bleu,
    corpus_bleu_signature,
)
from babeltune.evaluation.metrics.measure import Metric, score
from babeltune.evaluation.metrics.tokens import jieba_is_there

__all__ = ["METRICS", "Metric", "TextTokens", "corpus_bleu", "corpus_bleu_signature", "find", "over", "refused", "score"]


def _named(name: str) -> Metric:
    found = variants.metric(name)
    assert found is not None
    return found


METRICS: dict[str, Metric] = OWN | {name: _named(name) for name in variants.FAMILIES if name not in OWN}
"""By their names without choices."""


def find(name: str) -> Metric:
    """The metric of a name with or without choices. Raises EvalError for one that is not there."""
    words = refused(name)
    if words is not None:
        raise EvalError(words)
    return METRICS[name] if name in METRICS else _named(name)


def refused(name: str) -> str | None:
    """What is wrong with a metric's name in one sentence; None when there is such a metric."""
    where, family = "evaluation.metrics", name.split(":")[0]
    if family not in METRICS:
        hint = f"evaluation.metrics=[{nearest(family, METRICS, 1)}]"
        return problem(where, repr(name), f"some of {', '.join(METRICS)}", hint)
    if name not in METRICS and variants.metric(name) is None:
        known = variants.FAMILIES.get(family)
        words = [" or ".join(variants.CHOICES[choice]) for choice in known.choices] if known else []
        expected = f"{family}:{', and '.join(words)}" if words else f"{family}, which leaves no choice"
        return problem(where, repr(name), expected, f"evaluation.metrics=[{family}]")
    if variants.uses_jieba(name) and not jieba_is_there():
        return problem(where, f"{name!r} without the package jieba", "the package", 'pip install ".[zh]"')
    return None
