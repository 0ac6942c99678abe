"""Questions with lettered options: MMLU and CRASS as InstructEval puts them, MMCU as the cookbook's code and as its authors do.

InstructEval: github.com/declare-lab/instruct-eval, `mmlu.py` and `crass.py`; the cookbook: github.com/PhoebusSi/Alpaca-CoT,
`eval/generate.py`; MMCU's authors: github.com/Felixgithub2017/MMCU, `TestBloomz.py`.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import assert_never

from babeltune.errors import DataError, problem
from babeltune.evaluation.suites import benchmarks
from babeltune.evaluation.suites.benchmarks import LETTERS, bare, field, lettered
from babeltune.options import RunConfig
from babeltune.records import Item, Message, Reply, Row, Score, Verdict
from babeltune.suites import Choices, ChoiceSuite

CRASS_SHOTS = (
    "A feather falls from a skyscraper. What would have happened if a computer had fallen from the skyscraper?\n"
    "A. The computer would have remained intact.\nB. That is not possible.\nC. The computer would have been crushed.\n"
    "Answer: C\n\n",
    "A lightning hits a tree. What would have happened if a marble would have hit the tree?\n"
    "A. It would have burned down.\nB. Nothing special would have happened.\nC. The tree would have kissed the lightning.\n"
    "Answer: B\n\n",
    "A man drinks a beer. What would have happened if the man had drunk a rainbow?\n"
    "A. It would have been tasty.\nB. It would have been awful.\nC. That is not possible.\nAnswer: C\n\n",
)
"""The examples of CRASS's paper (Frohberg and Binder 2022), which InstructEval shows. None of them is asked."""

FIELDS = {"医疗": "medicine", "法律": "law", "心理": "psychology", "教育": "education"}
"""MMCU's four, as they are called in names of scores."""

_MARKS = " ．|[A-D][、.]|[Ａ-Ｄ]、|[A-D]"
"""What MMCU's authors take out of options: their letters, wherever they stand."""


def items(config: RunConfig) -> list[Item]:
    """The benchmark's questions, in the order of its files."""
    suite = config.evaluation
    assert isinstance(suite, ChoiceSuite)
    match suite.benchmark:
        case Choices.mmlu:
            found = _mmlu(benchmarks.rows(config), suite)
        case Choices.crass:
            found = _crass(benchmarks.rows(config), suite)
        case Choices.mmcu:
            found = _mmcu(benchmarks.rows(config), suite)
        case _:
            assert_never(suite.benchmark)
    return benchmarks.some(found, suite.max_items)


def scores(config: RunConfig, items: Sequence[Item], replies: Sequence[Reply], verdicts: Mapping[str, Verdict]) -> list[Score]:
    """Accuracy over all questions; MMCU's is the mean of its fields."""
    suite = config.evaluation
    assert isinstance(suite, ChoiceSuite)
    if suite.benchmark is Choices.mmcu:
        rule = f"letters are the reference's, first run of them|shots:{suite.shots}"
        return benchmarks.of_replies(config, items, replies, _same_letters, rule, over_categories=True)
    rule = f"reply begins with the letter|shots:{suite.shots}"
    return benchmarks.of_replies(config, items, replies, benchmarks.begins_with, rule)


def letters(text: str) -> str:
    """The letters that a reply to MMCU chooses, in their order in the alphabet; empty where there are none.

    As its authors read it: marks between letters are taken out, and the first run of up to four in which none comes twice counts.

    >>> letters("正确答案是 C、A。B")
    'AC'
    """
    plain = re.sub(r"[、.,;，]", "", unicodedata.normalize("NFKC", text))
    runs = (run for run in re.findall(r"[ABCD]{1,4}", plain) if len(run) == len(set(run)))
    return "".join(sorted(next(runs, "")))


def _same_letters(item: Item, reply: Reply) -> bool:
    return letters(reply.text) == item.reference


def _mmlu(rows: benchmarks.Rows, suite: ChoiceSuite) -> list[Item]:
    """Of each subject the first examples of `dev`, before each question of `test`."""
    if "test" not in rows or (suite.shots and "dev" not in rows):
        expected = "the files dev and test" if suite.shots else "the file test"
        raise DataError(problem("evaluation=mmlu", f"files {', '.join(rows)}", expected, "evaluation.sources.eval_mmlu.files=[]"))
    shown: dict[str, list[str]] = {}
    for row in rows.get("dev", []):
        worked = f"{_mmlu_question(row)} {_mmlu_answer(row)}\n\n"
        shown.setdefault(field(row, "subject"), []).append(worked)
    found, counts = [], dict.fromkeys((field(row, "subject") for row in rows["test"]), 0)
    for row in rows["test"]:
        subject = field(row, "subject")
        counts[subject] += 1
        if suite.shots > len(shown.get(subject, ())):
            got = f"{len(shown.get(subject, ()))} examples of {subject}"
            raise DataError(problem("evaluation.shots", got, f"evaluation.shots={suite.shots} of each subject", "fewer"))
        name = f"{subject}:{counts[subject]}"
        lead = suite.lead.replace("{subject}", subject.replace("_", " "))
        shots = tuple(shown.get(subject, ())[: suite.shots])
        found.append(bare(name, _mmlu_question(row), _mmlu_answer(row), subject, lead=lead, shots=shots))
    return found


def _mmlu_question(row: Row) -> str:
    options = row.fields.get("choices") or [field(row, letter) for letter in LETTERS[:4]]
    return f"{field(row, 'question')}{lettered(options)}\nAnswer:"


def _mmlu_answer(row: Row) -> str:
    answer = field(row, "answer")
    return LETTERS[answer] if isinstance(answer, int) else str(answer)


def _crass(rows: benchmarks.Rows, suite: ChoiceSuite) -> list[Item]:
    """Options in an order drawn with the seed 0, row by row, as InstructEval draws it."""
    drawn = random.Random(0)
    if suite.shots > len(CRASS_SHOTS):
        raise DataError(problem("evaluation.shots", suite.shots, f"at most the {len(CRASS_SHOTS)} there are", "evaluation.shots=3"))
    found = []
    for number, row in enumerate((row for file in rows.values() for row in file), start=1):
        options, right = _crass_options(row)
        drawn.shuffle(options)
        asked = row.fields.get("input") or f"{field(row, 'premise').strip()} {field(row, 'question').strip()}"
        text = f"{asked.strip()}{lettered(options)}\nAnswer:"
        found.append(bare(str(number), text, LETTERS[options.index(right)], "crass", lead="", shots=CRASS_SHOTS[: suite.shots]))
    return found


def _crass_options(row: Row) -> tuple[list[str], str]:
    """The options, the right one first as in the benchmark's own file, and the right one."""
    marked = row.fields.get("target_scores")
    if marked is None:
        options = [str(option).strip() for option in field(row, "options") if str(option).strip()][:4]
        return options, options[0]
    right = [option for option, value in marked.items() if value]
    if len(right) != 1:
        raise DataError(problem(row.place, f"{len(right)} right options", "one", "leaving the row out"))
    return [*right, *(option for option in marked if option != right[0])], right[0]


def _mmcu(rows: benchmarks.Rows, suite: ChoiceSuite) -> list[Item]:
    """All questions; with `turn` as a user asks, else as bare text. Examples, where wanted, are the rows of a file `dev`."""
    shown: dict[str, list[str]] = {}
    for row in rows.get("dev", []):
        shown.setdefault(_mmcu_field(row), []).append(f"{_mmcu_question(row, suite)} {_mmcu_answer(row)}\n\n")
    found, counts = [], dict.fromkeys(FIELDS.values(), 0)
    for row in (row for name, file in rows.items() if name != "dev" for row in file):
        area = _mmcu_field(row)
        counts[area] = counts.get(area, 0) + 1
        shots = tuple(shown.get(area, ())[: suite.shots])
        if len(shots) < suite.shots:
            got = f"{len(shots)} examples of {area}"
            raise DataError(problem("evaluation.shots", got, f"{suite.shots} in a file dev", "evaluation.shots=0"))
        item = bare(f"{area}:{counts[area]}", _mmcu_question(row, suite), _mmcu_answer(row), area, lead=suite.lead, shots=shots)
        found.append(replace(item, messages=_turn(item, suite), language="zh"))
    return found


def _turn(item: Item, suite: ChoiceSuite) -> tuple[Message, ...]:
    if not suite.turn:
        return item.messages
    system = (Message("system", suite.system),) if suite.system else ()
    return (*system, Message("user", item.messages[0].text))


def _mmcu_question(row: Row, suite: ChoiceSuite) -> str:
    question = field(row, "题目")
    if suite.turn:
        options = row.fields.get("选项")
        if options is None:
            options = "\n".join(f"{letter}:{field(row, letter)}" for letter in LETTERS[:4])
        return f"{question}\n{options}\n正确答案的序号是：\n"
    return f"{question}{lettered(_mmcu_options(row))}\n正确答案的序号是："


def _mmcu_options(row: Row) -> list[str]:
    """The options without their letters."""
    whole = row.fields.get("选项")
    parts = [str(field(row, letter)) for letter in LETTERS[:4]] if whole is None else whole.split("\n")
    return [re.sub(_MARKS, "", re.sub(r"^[A-D][:：]", "", part)).strip() for part in parts]


def _mmcu_answer(row: Row) -> str:
    found = letters(str(field(row, "答案")).replace("\u3000", "").replace(" ", ""))
    if not found:
        raise DataError(
            problem(row.place, f"answer {field(row, '答案')!r}", "letters from A to D", "the file of 2023-05-13 or later")
        )
    return found


def _mmcu_field(row: Row) -> str:
    name = str(field(row, "类别"))
    return FIELDS.get(name, name)
