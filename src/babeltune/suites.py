"""Every kind of suite there is: one dataclass per kind, each field with its meaning and unit. Values live in `conf/evaluation/`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

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


class Choices(Enum):
    """Benchmarks of lettered options."""

    mmlu = "mmlu"
    """57 subjects: `subject`, `question`, `A` to `D` (or `choices`), `answer`. Examples come from the `dev` file."""
    crass = "crass"
    """What would have happened: `premise` and `question` (or `input`), and options, the first of them right (or `target_scores`)."""
    mmcu = "mmcu"
    """Chinese examinations of four fields: `类别`, `题目`, `选项` (or `A` to `D`), `答案`, of one or more letters."""


class Words(Enum):
    """Benchmarks answered in a few words."""

    bbh = "bbh"
    """BIG-Bench Hard, a file for each task: `input`, `target`."""
    drop = "drop"
    """Reading for numbers and names: `passage`, `question`, `answers_spans` (or `context` and `ref_text`)."""


@dataclass(kw_only=True)
class BenchmarkSuite(EvaluationConfig):
    """What published benchmarks have in common: all of their rows, and a rule of their own for what is right."""

    max_items: int = 1_000_000
    """The most items, chosen by what they are called; a smaller suite is part of a larger one."""


@dataclass(kw_only=True)
class ChoiceSuite(BenchmarkSuite):
    """Questions with lettered options, answered by a letter."""

    kind: str = "choices"
    benchmark: Choices = MISSING
    shots: int = 0
    """Worked examples before each question."""
    lead: str = ""
    """What comes first in the prompt, before examples; `{subject}` is the question's."""
    turn: bool = False
    """Ask as a user does, in the run's template; false continues the bare text."""
    system: str = ""
    """With `turn`: what stands in place of the template's preamble; empty for its own."""


@dataclass(kw_only=True)
class FewShotSuite(BenchmarkSuite):
    """Questions answered in a few words, right when the reply begins with the answer."""

    kind: str = "fewshot"
    benchmark: Words = MISSING
    shots: int = 3
    """Worked examples before each question. They are taken from the benchmark's own items, which are not asked then."""


@dataclass(kw_only=True)
class CodeSuite(BenchmarkSuite):
    """Functions to complete in Python, right when their tests pass: `prompt`, `test`, `entry_point`."""

    kind: str = "code"
    allow_code: bool = False
    """Run what the model wrote, in a sandbox: see `babeltune.evaluation.sandbox` for what it keeps out."""
    seconds: float = 3.0
    """Seconds of computing that a program may take."""
    memory_mb: int = 512
    """Address space of each of a program's processes, in MiB."""


@dataclass(kw_only=True)
class PreferenceSuite(BenchmarkSuite):
    """Pairs of answers to one query, of which the model is to prefer the better: `input`, and `target_scores` or `targets`."""

    kind: str = "preferences"


KINDS: dict[str, type[EvaluationConfig]] = {
    "none": NoSuite,
    "toy": ToySuite,
    "heldout": HeldoutSuite,
    "choices": ChoiceSuite,
    "fewshot": FewShotSuite,
    "code": CodeSuite,
    "preferences": PreferenceSuite,
}
