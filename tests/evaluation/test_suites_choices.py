"""Benchmarks of lettered options are asked in the words of the code that made the published numbers, and counted as it counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from babeltune.data import templates
from babeltune.errors import ConfigError, DataError
from babeltune.evaluation import suites
from babeltune.evaluation.suites import choices
from babeltune.evaluation.suites.benchmarks import prompts
from babeltune.records import Item, Score
from tests.evaluation import benchmarks

MMLU = """The following are multiple choice questions (with answers) about  world lakes.

world_lakes 0?
A. p
B. q
C. r
D. s
Answer: A

world_lakes 1?
A. p
B. q
C. r
D. s
Answer: B

world_lakes 10?
A. p
B. q
C. r
D. s
Answer:"""

CRASS = """A feather falls from a skyscraper. What would have happened if a computer had fallen from the skyscraper?
A. The computer would have remained intact.
B. That is not possible.
C. The computer would have been crushed.
Answer: C

A cup is full. What would have happened if it had been empty?
A. Nothing to drink.
B. It is a cup.
C. Tea.
Answer:"""

MMCU = """Below is an instruction that describes a task, paired with an input that provides further context. \
Write a response that appropriately completes the request.

### Instruction:
请阅读以下选择题并给出正确选项，不要解释原因。
湖水是什么颜色？
A:蓝
B:绿
C:红
D:黑
正确答案的序号是：


### Response:
"""

MMCU_AUTHORS = """请阅读以下选择题并给出正确选项，不要解释原因。请只给出答案的序号。
湖水是什么颜色？
A. 蓝
B. 绿
C. 红
D. 黑
正确答案的序号是："""


def _text(item: Item, place: int = 0) -> str:
    (message,) = list(prompts(item))[place]
    return message.text


def _scores(found: list[Score]) -> dict[str, float | None]:
    return {score.name: score.value for score in found}


def _mmcu(root: Path) -> None:
    lake = {"类别": "教育", "题目": "湖水是什么颜色？", "选项": "A:蓝\nB:绿\nC:红\nD:黑", "答案": "BA"}
    law = {"类别": "法律", "题目": "谁？", "A": "A、甲", "B": "B.乙", "C": "丙", "D": "丁", "答案": "Ｃ "}
    benchmarks.write(root, "eval_mmcu", test=[lake, law, law | {"答案": "D"}])


def test_mmlu_is_asked_in_instructevals_words(tmp_path: Path) -> None:
    benchmarks.mmlu(tmp_path)
    items = suites.items(benchmarks.config(tmp_path, "mmlu", "evaluation.shots=2"))
    assert [(item.id, item.reference) for item in items] == [
        ("world_lakes:1", "C"),
        ("world_lakes:2", "C"),
        ("world_lakes:3", "C"),
        ("sums:1", "C"),
    ]
    assert _text(items[0]) == MMLU
    lead, first, _, question = MMLU.split("\n\n")
    assert [_text(items[0], fewer) for fewer in (1, 2)] == [f"{lead}\n\n{first}\n\n{question}", f"{lead}\n\n{question}"]
    assert [message.role for message in next(prompts(items[0]))] == ["text"]


def test_mmlu_without_examples_needs_none_and_is_decoded_alike(tmp_path: Path) -> None:
    benchmarks.mmlu(tmp_path)
    with_examples = benchmarks.config(tmp_path, "mmlu")
    (tmp_path / "eval_mmlu" / "dev.jsonl").unlink()
    settings = benchmarks.config(tmp_path, "mmlu_0shot", "evaluation.sources.eval_mmlu.files=[]")
    (text,) = {_text(item, -1) for item in suites.items(settings)[:1]}
    assert text == "\n\n".join(MMLU.split("\n\n")[::3])
    assert settings.decoding == with_examples.decoding
    assert (settings.decoding.max_new_tokens, settings.decoding.sample) == (2, False)


def test_an_example_is_never_asked(tmp_path: Path) -> None:
    benchmarks.mmlu(tmp_path)
    for item in suites.items(benchmarks.config(tmp_path, "mmlu")):
        assert len(item.facts["shots"]) == 5
        assert not any(item.messages[0].text in shot for shot in item.facts["shots"])


def test_mmlu_counts_questions_and_what_replies_begin_with(tmp_path: Path) -> None:
    benchmarks.mmlu(tmp_path)
    settings = benchmarks.config(tmp_path, "mmlu")
    items = suites.items(settings)
    said = dict(zip((item.id for item in items), [" C", "C.", "c", "The answer is C"], strict=True))
    found = choices.scores(settings, items, benchmarks.replies(said), {})
    assert _scores(found) == {"mmlu/accuracy": 50.0, "mmlu/accuracy_sums": 0.0, "mmlu/accuracy_world_lakes": pytest.approx(200 / 3)}
    assert found[0].n == 4
    assert found[0].signature == "reply begins with the letter|shots:5|mean:items"


def test_more_examples_than_there_are_are_refused(tmp_path: Path) -> None:
    benchmarks.mmlu(tmp_path)
    with pytest.raises(DataError) as caught:
        suites.items(benchmarks.config(tmp_path, "mmlu", "evaluation.shots=6"))
    assert str(caught.value) == (
        "evaluation.shots: got 5 examples of world_lakes; expected evaluation.shots=6 of each subject; try fewer"
    )


def test_a_smaller_suite_is_part_of_a_larger_one(tmp_path: Path) -> None:
    benchmarks.mmlu(tmp_path)
    names = [
        [item.id for item in suites.items(benchmarks.config(tmp_path, "mmlu", f"evaluation.max_items={n}"))] for n in (1, 2, 3, 9)
    ]
    assert [len(one) for one in names] == [1, 2, 3, 4]
    assert set(names[0]) < set(names[1]) < set(names[2]) < set(names[3])


def test_crass_is_asked_with_its_papers_examples(tmp_path: Path) -> None:
    row = {
        "input": "A cup is full. What would have happened if it had been empty?",
        "target_scores": {"Tea.": 0, "Nothing to drink.": 1, "It is a cup.": 0},
    }
    benchmarks.write(tmp_path, "eval_crass_43", data=[row])
    (item,) = suites.items(benchmarks.config(tmp_path, "crass"))
    assert _text(item, 2) == CRASS
    assert item.reference == "A"
    assert len(item.facts["shots"]) == 3


def test_both_forms_of_crass_are_shuffled_alike(tmp_path: Path) -> None:
    own = {"premise": "A cup is full. ", "question": " What now?", "options": ["Right.", "Wrong.", "Other.", ""]}
    marked = {"input": "A cup is full. What now?", "target_scores": {"Wrong.": 0, "Other.": 0, "Right.": 1}}
    benchmarks.write(tmp_path / "a", "eval_crass_43", data=[own] * 8)
    benchmarks.write(tmp_path / "b", "eval_crass_43", data=[marked] * 8)
    first, second = (suites.items(benchmarks.config(tmp_path / name, "crass_0shot")) for name in "ab")
    assert [(_text(item), item.reference) for item in first] == [(_text(item), item.reference) for item in second]
    assert {item.reference for item in first} == {"A", "B", "C"}
    assert all(f"\n{item.reference}. Right.\n" in _text(item) for item in first)


def test_mmcu_is_asked_in_the_cookbooks_words(tmp_path: Path) -> None:
    _mmcu(tmp_path)
    item = suites.items(benchmarks.config(tmp_path, "mmcu"))[0]
    messages = next(prompts(item))
    segments = templates.render_prompt(messages, templates.choose("alpaca"), templates.Marks(None, "</s>"))
    assert "".join(segment.text for segment in segments) == MMCU
    assert (item.reference, item.category, item.language) == ("AB", "education", "zh")


def test_mmcu_takes_a_suffix_and_another_preamble(tmp_path: Path) -> None:
    _mmcu(tmp_path)
    settings = benchmarks.config(tmp_path, "mmcu", "evaluation.system=''", "evaluation.prompt='{question}先思考，再决定'")
    (message,) = next(prompts(suites.items(settings)[0]))
    assert message.text.startswith("请阅读以下选择题并给出正确选项，不要解释原因。\n湖水")
    assert message.text.endswith("正确答案的序号是：\n先思考，再决定")


def test_mmcu_is_asked_in_its_authors_words(tmp_path: Path) -> None:
    _mmcu(tmp_path)
    items = suites.items(benchmarks.config(tmp_path, "mmcu_authors"))
    assert _text(items[0]) == MMCU_AUTHORS
    assert "A. 甲\nB. 乙\nC. 丙\nD. 丁" in _text(items[1])


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("B、A", "AB"),
        ("正确答案是 C。D 不对", "C"),
        ("ＡＣ", "AC"),
        ("AAB, then D", "D"),
        ("不知道", ""),
        ("ABCD", "ABCD"),
    ],
)
def test_letters_are_the_first_run_without_repeats(said: str, found: str) -> None:
    assert choices.letters(said) == found


def test_mmcu_is_the_mean_of_its_fields(tmp_path: Path) -> None:
    _mmcu(tmp_path)
    settings = benchmarks.config(tmp_path, "mmcu")
    items = suites.items(settings)
    said = dict(zip((item.id for item in items), ["A、B", "答案是C", "C"], strict=True))
    found = choices.scores(settings, items, benchmarks.replies(said), {})
    assert _scores(found) == {"mmcu/accuracy": 75.0, "mmcu/accuracy_education": 100.0, "mmcu/accuracy_law": 50.0}


def test_a_question_without_an_answer_is_refused(tmp_path: Path) -> None:
    benchmarks.write(tmp_path, "eval_mmcu", test=[{"类别": "心理", "题目": "?", "选项": "A:x", "答案": ""}])
    with pytest.raises(DataError, match=r"got answer ''; expected letters from A to D; try the file of 2023-05-13 or later"):
        suites.items(benchmarks.config(tmp_path, "mmcu"))


def test_a_benchmark_has_no_metrics(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        benchmarks.config(tmp_path, "mmlu", "evaluation.metrics=[chrf]")
    assert str(caught.value) == (
        "evaluation.metrics: got ['chrf']; expected none: the benchmark counts what is right; try evaluation.metrics=[]"
    )


def test_a_benchmark_says_how_it_is_decoded(tmp_path: Path) -> None:
    settings = benchmarks.config(tmp_path, "bbh", "experiment=flacuna", "scale=paper")
    assert (settings.decoding.name, settings.decoding.max_new_tokens, settings.decoding.sample) == ("tokens_32", 32, False)
    assert settings.evaluation.prompt_tokens == 2048
    assert benchmarks.config(tmp_path, "bbh").decoding.max_new_tokens == 24  # the quick scale's
    assert benchmarks.config(tmp_path, "mmcu", "decoding=vi", "scale=paper").decoding.name == "vi"
