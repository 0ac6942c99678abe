"""BIG-Bench Hard and DROP as InstructEval puts them: worked examples, a question, and `Answer:` (its `bbh.py` and `drop.py`)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from babeltune.errors import DataError, problem
from babeltune.evaluation.suites import benchmarks
from babeltune.evaluation.suites.benchmarks import bare, field
from babeltune.options import RunConfig
from babeltune.records import Item, Reply, Row, Score, Verdict
from babeltune.suites import FewShotSuite, Words


@dataclass(frozen=True, slots=True)
class Reading:
    """A question of DROP about a passage."""

    passage: str
    question: str
    answers: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"{self.passage.strip()} {self.question.strip()}\nAnswer:"


def items(config: RunConfig) -> list[Item]:
    """The benchmark's questions without those that are shown as examples."""
    suite = config.evaluation
    assert isinstance(suite, FewShotSuite)
    match suite.benchmark:
        case Words.bbh:
            found = [item for task, rows in benchmarks.rows(config).items() for item in _task(task, rows, suite.shots)]
        case Words.drop:
            found = _drop([row for rows in benchmarks.rows(config).values() for row in rows], suite.shots)
        case _:
            assert_never(suite.benchmark)
    return benchmarks.some(found, suite.max_items)


def scores(config: RunConfig, items: Sequence[Item], replies: Sequence[Reply], verdicts: Mapping[str, Verdict]) -> list[Score]:
    """Accuracy: of BBH the mean over its tasks (its files), of DROP over its questions."""
    suite = config.evaluation
    assert isinstance(suite, FewShotSuite)
    rule = f"reply begins with the answer|shots:{suite.shots}"
    over_tasks = suite.benchmark is Words.bbh
    return benchmarks.of_replies(config, items, replies, benchmarks.begins_with, rule, over_categories=over_tasks)


def _task(task: str, rows: Sequence[Row], num_shots: int) -> list[Item]:
    """The rows of a task after its first ones, which are shown before each."""
    shots = tuple(f"{_question(row)} {field(row, 'target')}\n\n" for row in rows[:num_shots])
    return [
        bare(f"{task}:{number}", _question(row), str(field(row, "target")), task, lead="", shots=shots)
        for number, row in enumerate(rows[num_shots:], start=num_shots + 1)
    ]


def _question(row: Row) -> str:
    return f"{field(row, 'input')}\nAnswer:"


def _drop(rows: Sequence[Row], num_shots: int) -> list[Item]:
    """The questions with one answer, without all about the passages of the examples. Those are drawn with the seed 0."""
    numbered = [(number, _reading(row)) for number, row in enumerate(rows, start=1)]
    clear = [(number, one) for number, one in numbered if len(set(one.answers)) == 1]
    if len(clear) < num_shots:
        raise DataError(problem("evaluation.shots", num_shots, f"at most the {len(clear)} questions with one answer", "fewer"))
    shown = [one for _, one in random.Random(0).sample(clear, num_shots)]
    passages = {one.passage for one in shown}
    shots = tuple(f"{one.text} {one.answers[0]}\n\n" for one in shown)
    return [
        bare(str(number), one.text, one.answers[0], "drop", lead="", shots=shots)
        for number, one in clear
        if one.passage not in passages
    ]


def _reading(row: Row) -> Reading:
    """A row of DROP, or of its flat form: `Passage: …\\nQuestion: …\\nAnswer:` and all answers in one text.

    There, answers that people gave differently stand apart with `|`, and the parts of one answer with ` and `; both count as
    several answers, as they are several spans in DROP itself.
    """
    if "context" not in row.fields:
        spans = field(row, "answers_spans")["spans"]
        return Reading(field(row, "passage"), field(row, "question"), tuple(str(span).strip() for span in spans))
    passage, mark, rest = field(row, "context").removeprefix("Passage: ").partition("\nQuestion: ")
    if not mark:
        raise DataError(problem(row.place, "a context without a question", "'Passage: …\\nQuestion: …'", "DROP's own fields"))
    answers = [part for answer in field(row, "ref_text").split("|") for part in answer.split(" and ")]
    return Reading(passage, rest.removesuffix("\nAnswer:"), tuple(part.strip() for part in answers))
