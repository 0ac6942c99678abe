"""Rows of every format become the messages their authors meant."""

import pytest

from babeltune.data.formats import ROLES, conversation, unfolded
from babeltune.options import Format, SourceConfig
from babeltune.records import Dropped, Message, Row

USER, ANSWER = "Đưa ra ba mẹo để giữ sức khỏe。😀", " 1. Ăn uống cân bằng.\n2. Ngủ đủ giấc. "


def read(format, fields, rename=None):
    source = SourceConfig(name="mine", language="vi", format=Format[format], rename=rename or {})
    return conversation(Row("mine.jsonl:7", fields), source)


def talk(format, fields, rename=None):
    return [(message.role, message.text) for message in read(format, fields, rename).messages]


SAME = {
    "alpaca": {"instruction": USER, "input": "", "output": ANSWER},
    "prompt_response": {"prompt": USER, "response": ANSWER},
    "sharegpt": {"conversations": [{"from": "human", "value": USER}, {"from": "gpt", "value": ANSWER}]},
    "messages": {"messages": [{"role": "user", "content": USER}, {"role": "assistant", "content": ANSWER}]},
}


@pytest.mark.parametrize("format", SAME)
def test_every_format_says_the_same_words_unchanged(format):
    assert talk(format, SAME[format]) == [("user", USER), ("assistant", ANSWER)]


def test_a_conversation_knows_where_it_comes_from():
    made = read("alpaca", SAME["alpaca"])
    assert (made.source, made.language, made.place) == ("mine", "vi", "mine.jsonl:7")


def test_the_input_of_an_alpaca_row_is_kept_apart():
    made = read("alpaca", {"instruction": "翻译。", "input": "早上好", "output": "Good morning."})
    assert made.messages == (Message("user", "翻译。", input="早上好"), Message("assistant", "Good morning."))


@pytest.mark.parametrize("missing", [{}, {"input": None}, {"input": ""}, {"history": None, "system": None}])
def test_what_an_alpaca_row_may_lack_counts_as_empty(missing):
    made = read("alpaca", {"instruction": "翻译。", "output": "ok"} | missing)
    assert made.messages == (Message("user", "翻译。"), Message("assistant", "ok"))


def test_history_and_system_come_before_the_question():
    row = {
        "system": "你是医生。",
        "history": [["一", "1"], ["二", "2"]],
        "instruction": "三",
        "input": "",
        "output": "3",
    }
    assert talk("alpaca", row) == [
        ("system", "你是医生。"),
        ("user", "一"),
        ("assistant", "1"),
        ("user", "二"),
        ("assistant", "2"),
        ("user", "三"),
        ("assistant", "3"),
    ]


def test_a_document_is_one_message():
    assert talk("text", {"text": "上工治未病。\n", "file": "x"}) == [("text", "上工治未病。\n")]


TASK = {
    "Definition": ["Dịch câu sau.", "Answer in English."],
    "Instances": [
        {"id": "1", "input": "Xin chào", "output": ["Hello", "Hi"]},
        {"id": "2", "input": "你好 😀", "output": "Hello"},
    ],
}


def test_a_task_of_natural_instructions_becomes_its_instances():
    source = SourceConfig(name="mine", language="en", format=Format.niv2)
    rows = list(unfolded([Row("tasks.jsonl:3", TASK), Dropped("tasks.jsonl:4", "invalid JSON")], source))
    assert rows[2] == Dropped("tasks.jsonl:4", "invalid JSON")
    made = [conversation(row, source) for row in rows[:2]]
    assert [item.place for item in made] == ["tasks.jsonl:3:Instances[0]", "tasks.jsonl:3:Instances[1]"]
    assert [tuple(message.text for message in item.messages) for item in made] == [
        ("Dịch câu sau.\nAnswer in English.\n\nXin chào", "Hello"),
        ("Dịch câu sau.\nAnswer in English.\n\n你好 😀", "Hello"),
    ]


@pytest.mark.parametrize(
    ("task", "place", "reason", "detail"),
    [
        ({"Instances": []}, "t:1", "missing field", "got keys 'Instances'; expected 'Definition'"),
        (TASK | {"Definition": "x"}, "t:1", "wrong type", "got str as Definition; expected a list"),
        (TASK | {"Definition": [1]}, "t:1", "wrong type", "got int as Definition; expected text"),
        (TASK | {"Instances": [3]}, "t:1:Instances[0]", "wrong type", "got int; expected an object"),
    ],
)
def test_a_task_that_does_not_fit_is_bad_and_says_why(task, place, reason, detail):
    source = SourceConfig(name="mine", language="en", format=Format.niv2)
    assert list(unfolded([Row("t:1", task)], source)) == [Dropped(place, reason, detail, is_bad=True)]


@pytest.mark.parametrize(
    "instance", [{"output": ["a"]}, {"input": 3, "output": ["a"]}, {"input": "a"}, {"input": "a", "output": []}]
)
def test_an_instance_without_text_is_bad(instance):
    source = SourceConfig(name="mine", language="en", format=Format.niv2)
    (row,) = unfolded([Row("t:1", TASK | {"Instances": [instance]})], source)
    assert conversation(row, source).is_bad


def test_a_row_of_another_format_is_not_unfolded():
    row = Row("t:1", SAME["alpaca"])
    assert list(unfolded([row], SourceConfig(name="mine", language="vi"))) == [row]


@pytest.mark.parametrize("format", ["sharegpt", "messages"])
def test_turns_start_with_a_user_and_end_with_the_assistant(format):
    names = ("conversations", "from", "value") if format == "sharegpt" else ("messages", "role", "content")
    key, role, text = names
    said = [
        "system:S",
        "assistant:before",
        "user:1",
        "assistant:2",
        "user:3",
        "assistant:4",
        "user:after",
        "user:again",
    ]
    row = {key: [dict(zip((role, text), turn.split(":"), strict=True)) for turn in said]}
    assert talk(format, row) == [("system", "S"), ("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4")]


@pytest.mark.parametrize("word", [*ROLES, "GPT", " Human "])
def test_every_word_for_a_role_is_known(word):
    role = ROLES[word.strip().lower()]
    turns = {"conversations": [{"from": "human", "value": "q"}, {"from": word, "value": "x"}, {"from": "gpt", "value": "a"}]}
    assert talk("sharegpt", turns)[1] == (role, "x")


@pytest.mark.parametrize("tag", ["zh", "zh-CN", "ZH", " zh_Hans "])
@pytest.mark.parametrize("field", ["lang", "language"])
def test_the_language_of_a_row_wins(tag, field):
    assert read("alpaca", SAME["alpaca"] | {field: tag}).language == "zh"


@pytest.mark.parametrize("tag", ["", None, 7])
def test_a_language_that_says_nothing_does_not(tag):
    assert read("alpaca", SAME["alpaca"] | {"lang": tag}).language == "vi"


def test_a_renamed_field_wins_over_its_namesake():
    row = {"question": "q", "prompt": "not this", "completion": "a"}
    assert talk("prompt_response", row, {"question": "prompt", "completion": "response"}) == [
        ("user", "q"),
        ("assistant", "a"),
    ]


@pytest.mark.parametrize(
    ("format", "fields", "reason", "detail"),
    [
        (
            "alpaca",
            {"instruction": "a", "ouput": "b"},
            "missing field",
            "got keys 'instruction', 'ouput'; expected 'output'",
        ),
        ("prompt_response", {}, "missing field", "got keys none; expected 'prompt'"),
        ("text", {"txt": "a"}, "missing field", "got keys 'txt'; expected 'text'"),
        ("alpaca", {"instruction": "a", "output": None}, "wrong type", "got null as output; expected text"),
        ("alpaca", {"instruction": "a", "output": 7}, "wrong type", "got int as output; expected text"),
        (
            "alpaca",
            {"instruction": "a", "input": ["b"], "output": "c"},
            "wrong type",
            "got list as input; expected text",
        ),
        (
            "alpaca",
            {"instruction": "a", "output": "c", "history": [["one"]]},
            "wrong type",
            "got list as history[0]; expected a pair of user and assistant",
        ),
        ("sharegpt", {"items": []}, "missing field", "got keys 'items'; expected 'conversations'"),
        ("sharegpt", {"conversations": "hi"}, "wrong type", "got str as conversations; expected a list"),
        ("sharegpt", {"conversations": ["hi"]}, "wrong type", "got str as conversations[0]; expected an object"),
        (
            "messages",
            {"messages": [{"role": "user", "text": "a"}]},
            "missing field",
            "got keys 'role', 'text' in messages[0]; expected 'role' and 'content'",
        ),
        (
            "messages",
            {"messages": [{"role": "assistant", "content": None}]},
            "wrong type",
            "got null as messages[0].content; expected text",
        ),
        (
            "sharegpt",
            {"conversations": [{"from": "human", "value": "a"}, {"from": "tool", "value": "b"}]},
            "unknown role",
            "got 'tool' in conversations[1]; expected system, human, user, gpt, assistant, chatgpt, bing, bard",
        ),
    ],
)
def test_a_row_that_does_not_fit_its_format_is_bad_and_says_why(format, fields, reason, detail):
    assert read(format, fields) == Dropped("mine.jsonl:7", reason, detail, is_bad=True)
