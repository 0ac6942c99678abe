"""HumanEval as InstructEval puts it (its `human_eval/main.py`): a function to complete, run with its tests."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from babeltune.evaluation import metrics, sandbox
from babeltune.evaluation.suites import benchmarks
from babeltune.evaluation.suites.benchmarks import bare, field
from babeltune.options import RunConfig
from babeltune.records import Item, Reply, Score, Verdict
from babeltune.suites import CodeSuite

log = logging.getLogger(__name__)

LEAD = "Please complete the following Python code without providing any additional tasks such as testing or explanations\n"


def items(config: RunConfig) -> list[Item]:
    """The functions, each with its tests. The reference is the published solution."""
    suite = config.evaluation
    assert isinstance(suite, CodeSuite)
    found = [
        bare(
            str(field(row, "task_id")),
            field(row, "prompt"),
            field(row, "canonical_solution"),
            "code",
            lead=LEAD,
            test=field(row, "test"),
            entry_point=field(row, "entry_point"),
        )
        for rows in benchmarks.rows(config).values()
        for row in rows
    ]
    return benchmarks.some(found, suite.max_items)


def ready(config: RunConfig) -> None:
    """Raises EvalError when programs cannot be run here without harm."""
    suite = config.evaluation
    assert isinstance(suite, CodeSuite)
    assert suite.allow_code
    sandbox.check()


def scores(config: RunConfig, items: Sequence[Item], replies: Sequence[Reply], verdicts: Mapping[str, Verdict]) -> list[Score]:
    """The share of functions whose tests pass, in percent, with one reply to each."""
    suite = config.evaluation
    assert isinstance(suite, CodeSuite)
    assert suite.allow_code
    values: dict[str, float | None] = {}
    said = {reply.item: reply.text for reply in replies}
    for item in items:
        if item.id not in said:
            values[item.id] = None
            continue
        done = sandbox.run(program(item, completion(said[item.id])), seconds=suite.seconds, memory_mb=suite.memory_mb)
        values[item.id] = 100.0 * done.passed
        log.debug("%s: %s", item.id, done.said or "passed")
    rule = f"tests pass|first paragraph, indents even|{suite.seconds:g} s, {suite.memory_mb} MiB|Python {sandbox.python_version()}"
    return [metrics.score(f"{config.evaluation.name}/pass_at_1", values, f"{rule}|mean:items")]


def completion(text: str) -> str:
    """What is run of a reply: lines of odd indentation get one space more, and what follows the first blank line is left out.

    >>> completion("   return 1\\n\\nprint(2)")
    '    return 1'
    """
    lines = [" " * ((len(line) - len(line.lstrip(" "))) % 2) + line for line in text.split("\n")]
    return "\n".join(lines).lstrip("\n").split("\n\n")[0]


def program(item: Item, code: str) -> str:
    """A function with its tests behind it; an error in it is a test that fails."""
    return f"{item.messages[-1].text}{code}\n{item.facts['test']}\ncheck({item.facts['entry_point']})\n"
