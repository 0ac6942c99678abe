"""Every kind of suite there is: one dataclass per kind, each field with its meaning and unit. Values live in `conf/evaluation/`."""

from __future__ import annotations

from dataclasses import dataclass, field

from babeltune.options import EvaluationConfig


@dataclass(kw_only=True)
class NoSuite(EvaluationConfig):
    """Nothing is judged."""

    kind: str = "none"


@dataclass(kw_only=True)
class ToySuite(EvaluationConfig):
    """Generated test items of the toy world."""

    kind: str = "toy"
    languages: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class HeldoutSuite(EvaluationConfig):
    """The held-out rows of `sources`."""

    kind: str = "heldout"


KINDS: dict[str, type[EvaluationConfig]] = {"none": NoSuite, "toy": ToySuite, "heldout": HeldoutSuite}
