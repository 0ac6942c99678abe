"""What a model is judged on is found in what it is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from babeltune.data import contamination
from babeltune.data.contamination import Hit, Index, Outcome, Probe, find, probe, probes_of, report, without
from babeltune.options import ContaminationConfig
from babeltune.records import Conversation, Dropped, Item, Message

ZH = "请详细说明为什么高血压患者应当减少食盐的摄入量，并且给出三条日常饮食的具体建议。"
ZH_ANSWER = "食盐中的钠会使血容量增加，从而升高血压。建议少吃腌制食品，多吃新鲜蔬菜，烹饪时用香料代替部分食盐。"
VI = "Hãy giải thích vì sao người bị cao huyết áp nên giảm lượng muối ăn vào mỗi ngày và đưa ra ba lời khuyên cụ thể về ăn uống."
EN = (
    "Explain why people with high blood pressure should eat less salt every day and give three pieces of advice about what to cook."
)
QUESTIONS = {"zh": ZH, "vi": VI, "en": EN}


def talk(*turns: str, place: str = "a.jsonl:1") -> Conversation:
    messages = (Message("user" if number % 2 == 0 else "assistant", text) for number, text in enumerate(turns))
    return Conversation(tuple(messages), "mine", "zh", place)


def index(*questions: str, reference: str = "", **options: float) -> Index:
    probes = (Probe("suite", f"item{number}", text, reference) for number, text in enumerate(questions))
    return Index(probes, ContaminationConfig(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("language", QUESTIONS)
@pytest.mark.parametrize("leak", ["{}", "Trước đó. 前面的话。 {} After it.", "\u3000{}\n"])
def test_planted_questions_are_found_wherever_they_stand(language: str, leak: str) -> None:
    judged = index(*QUESTIONS.values())
    number = list(QUESTIONS).index(language)
    told = leak.format(QUESTIONS[language])
    assert judged.found(talk(told, "好。")) == (number,)
    assert judged.found(talk("你好", "Chào", "?", f"You asked: {told}")) == (number,)
    assert judged.found(talk(told.upper(), "好。")) == (number,)
    assert judged.found(Conversation((Message("user", "Answer:", input=told), Message("assistant", "1")), "mine", "zh", "x")) == (
        number,
    )


@pytest.mark.parametrize("language", QUESTIONS)
def test_a_question_with_a_word_changed_is_found_and_one_that_only_begins_alike_is_not(language: str) -> None:
    judged = index(*QUESTIONS.values())
    text = QUESTIONS[language]
    parts = list(text) if language == "zh" else text.split()
    joint = "" if language == "zh" else " "
    changed = joint.join([*parts[:2], "x", *parts[3:]])
    beginning = joint.join([*parts[: 2 * len(parts) // 3], *(f"khác{number}" for number in range(20))])
    assert len(judged.found(talk(changed, "好。"))) == 1
    assert judged.found(talk(beginning, "好。")) == ()
    assert len(index(*QUESTIONS.values(), overlap=0.0).found(talk(beginning, "好。"))) == 1


def test_a_long_reference_is_found_and_a_short_one_says_nothing() -> None:
    assert index("为什么？", reference=ZH_ANSWER).found(talk("说说盐。", ZH_ANSWER)) == (0,)
    assert index("为什么？", reference="对").found(talk("好吗", "对")) == ()
    assert index("Why is it so?", reference="No").found(talk("Is it?", "No")) == ()


def test_short_questions_are_found_as_whole_messages_of_the_user_only() -> None:
    judged = index("1+1等于几？", "Thủ đô của Pháp là gì?", "Capital of France?", "")
    assert judged.found(talk("１＋１等于几", "2")) == (0,)
    assert judged.found(talk("thủ đô của Pháp là gì", "Paris")) == (1,)
    assert judged.found(talk("A", "B", "capital of  FRANCE", "Paris")) == (2,)
    assert judged.found(talk("Capital of France and Spain?", "Paris")) == ()
    assert judged.found(talk("What did I ask?", "Capital of France?")) == ()
    assert judged.found(talk("!", "?")) == ()


def test_words_that_more_than_ten_items_have_are_the_tasks_and_no_leak() -> None:
    task = "Please read the following passage with care and answer the question that is asked after it in one word. " * 2
    own = [
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen".replace("e", f"e{n}") for n in range(12)
    ]
    judged = index(*(task + text for text in own))
    assert judged.found(talk(task + "Something else entirely.", "1")) == ()
    assert judged.found(talk(task + own[3], "1")) == (3,)


def test_a_system_message_of_an_item_does_not_count_and_its_input_does() -> None:
    item = Item("7", (Message("system", EN), Message("user", "Translate:", input=VI)), "好", "general", "vi")
    assert probe("suite", item) == Probe("suite", "7", f"Translate:\n{VI}", "好")


def test_rows_of_a_file_become_probes() -> None:
    document = Conversation((Message("text", ZH),), "mine", "zh", "b:1")
    rows = [talk(ZH, ZH_ANSWER, place="a:1"), document, Dropped("c:1", "empty answer")]
    assert list(probes_of("eval", rows)) == [Probe("eval", "a:1", f"{ZH}\n", ZH_ANSWER), Probe("eval", "b:1", f"{ZH}\n", "")]


ROWS = [
    talk("a", "b", place="a:1"),
    Dropped("a:2", "empty answer"),
    talk(VI, "b", place="a:3"),
    talk(f"{ZH} {VI}", "b", place="a:4"),
]


def test_what_was_looked_for_once_is_not_read_again(tmp_path: Path) -> None:
    judged = index(*QUESTIONS.values())
    reads = []

    def read() -> Iterator[Outcome]:
        reads.append(1)
        yield from ROWS

    expected = [Hit(2, "a:3", (1,)), Hit(3, "a:4", (0, 1))]
    assert find(read, judged, {"bytes": "1"}, tmp_path) == expected
    assert find(read, judged, {"bytes": "1"}, tmp_path) == expected
    assert len(reads) == 1
    find(read, judged, {"bytes": "2"}, tmp_path)
    find(read, index(*QUESTIONS.values(), words=12), {"bytes": "1"}, tmp_path)
    find(read, index(VI), {"bytes": "1"}, tmp_path)
    assert len(reads) == 4


def test_rows_that_hold_items_can_be_dropped() -> None:
    kept = list(without(lambda: ROWS, index(*QUESTIONS.values())))
    assert kept[:2] == ROWS[:2]
    assert kept[2] == Dropped("a:3", "in the evaluation set", "suite: item1", language="zh")
    assert kept[3] == Dropped("a:4", "in the evaluation set", "suite: item0", language="zh")


def test_the_report_counts_rows_by_source_and_items_by_suite() -> None:
    judged = index(*QUESTIONS.values())
    found = report({"mine": list(contamination._hits(ROWS, judged))}, {"mine": 9, "clean": 5}, judged, ContaminationConfig())
    assert found.suites == {"suite": {"items": 3, "found": 2}}
    assert found.sources == {"mine": {"rows": 9, "hold": 2}, "clean": {"rows": 5, "hold": 0}}
    assert found.samples[0] == {"source": "mine", "place": "a:3", "suite": "suite", "item": "item1"}
    assert len(found.samples) == 3
    assert found.label == "2 of 3 evaluation items are in the training data (2 rows)"
    assert report({"mine": []}, {"mine": 9}, judged, ContaminationConfig()).label == ""
