"""Every kind of judge there is: one dataclass per kind, each field with its meaning and unit. Values live in `conf/judge/`."""

from __future__ import annotations

from dataclasses import dataclass

from babeltune.options import JudgeConfig


@dataclass(kw_only=True)
class ReferenceJudge(JudgeConfig):
    """Metrics against known answers."""

    kind: str = "reference"


KINDS: dict[str, type[JudgeConfig]] = {"reference": ReferenceJudge}
