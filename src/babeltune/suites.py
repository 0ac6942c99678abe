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
    """What would have happened: `premise` and `question` (or `input`), and `options`, the first one right (or `target_scores`)."""
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


class SameQuestion(Enum):
    """What rows are that ask the same question."""

    apart = "apart"
    """Each row is an item of its own."""
    together = "together"
    """One item, with the references of all."""


@dataclass(kw_only=True)
class RowsSuite(EvaluationConfig):
    """Questions that are rows of files. A field is named as in the row, or by its path: `turns.0` is the first of `turns`."""

    kind: str = "rows"
    question: str = "question"
    """Field of what is asked."""
    input: str = ""
    """Field of what the question is about; empty for none."""
    reference: str = ""
    """Field of the right answer, a text or a list of texts; empty for none."""
    category: str = ""
    """Field of the kind of question; empty for none."""
    id: str = ""
    """Field that a question is known by; empty to know it by what it says."""
    where: dict[str, str] = field(default_factory=dict)
    """Field to the text it must have for the row to be asked."""
    same_question: SameQuestion = SameQuestion.apart
    """A question is the same by `id`, else by its words."""
    categories: dict[str, str] = field(default_factory=dict)
    """A category of the rows to its name here. Before that every name is casefolded, and its spaces are made plain ones."""
    languages: list[str] = field(default_factory=list)
    """Only questions in these; empty for all."""
    sample: int | None = None
    """So many rows of each source, drawn by what they say and not by where they stand; null for all."""
    sample_seed: int = 0
    max_items: int = 1_000_000
    """The most items of each source, the first ones of the sample: a smaller suite is part of a larger one."""
    judge_prompts: str = ""
    """Name or pattern of those files of `sources` that have no questions, but what a judge is told about each category, as `class`
    and `prompt`; empty for none."""
    judged_by: str = ""
    """The protocol of a judge that gives the paper's numbers; empty where metrics do."""
    aspects: list[str] = field(default_factory=list)
    """Facts of a verdict that are scored one by one; empty for the verdict's value."""
    category_score: str = "{category}"
    """Name of the judge's mean over a category."""
    pools: dict[str, list[str]] = field(default_factory=dict)
    """A further category to those that it is made of, over all their items."""
    macros: dict[str, list[str]] = field(default_factory=dict)
    """Name to the categories whose means it is the mean of; the first is the tables' score. Empty for `total`, over all items."""
    score_names: dict[str, str] = field(default_factory=dict)
    """A metric to the name that its score has: `rouge_l:char` to `rouge_l`."""
    answer_ends: str = ""
    """Where an answer ends although the model goes on: `###`. Empty for the model's own end."""
    standin: str = ""
    """What stands here in the place of the paper's questions; tables say so."""


KINDS: dict[str, type[EvaluationConfig]] = {
    "none": NoSuite,
    "toy": ToySuite,
    "heldout": HeldoutSuite,
    "rows": RowsSuite,
    "choices": ChoiceSuite,
    "fewshot": FewShotSuite,
    "code": CodeSuite,
    "preferences": PreferenceSuite,
}
