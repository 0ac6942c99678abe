"""What is trained on, what is held out, and when a source is refused."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from babeltune.data.filters import BadRows, is_heldout, keep
from babeltune.errors import DataError
from babeltune.records import Conversation, Dropped, Message


def talk(*turns, place="mine.jsonl:1"):
    """`talk("user: hi", "assistant: hello")`"""
    messages = [Message(*turn.split(": ", 1)) for turn in turns]
    return Conversation(tuple(messages), "mine", "vi", place)


SOUND = {
    "zh": talk("user: 3＋4等于多少？", "assistant: 等于7。😊"),
    "vi": talk("system: Bạn là bác sĩ.", "user: a\u0306n gì?", "assistant: Phở.", "user: Nữa?", "assistant: Cháo."),
    "en": talk("user: a\tb\r\n", "assistant: \u200d👩\u200d⚕️"),
    "text": talk("text: 上工治未病。"),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_conversation_is_kept_as_it_is(name):
    assert keep(SOUND[name]) is SOUND[name]


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        (["user: hi", "assistant: "], "empty answer"),
        (["user: hi", "assistant: \u3000\n\u200b"], "empty answer"),
        (["user: hi", "assistant: a", "user: b", "assistant: \x07"], "empty answer"),
        (["user:  ", "assistant: a"], "empty prompt"),
        (["text: \n"], "empty text"),
        ([], "no assistant turn"),
        (["user: hi"], "no assistant turn"),
        (["system: a", "user: hi"], "no assistant turn"),
        (["user: a", "user: b", "assistant: c"], "roles do not alternate"),
        (["assistant: a"], "roles do not alternate"),
        (["user: a", "assistant: b", "user: c"], "roles do not alternate"),
        (["user: a", "system: b", "assistant: c"], "roles do not alternate"),
        (["text: a", "assistant: c"], "roles do not alternate"),
        (["user: a", "assistant: b\x00c"], "garbled text"),
        (["user: a\ufffd", "assistant: b"], "garbled text"),
        (["user: a", "assistant: b\x1b[0m"], "garbled text"),
    ],
)
def test_what_teaches_nothing_is_refused_for_a_reason_and_not_called_bad(turns, reason):
    assert keep(talk(*turns)) == Dropped("mine.jsonl:1", reason, language="vi")


def test_an_input_alone_is_a_prompt():
    messages = (Message("user", "", input="一"), Message("assistant", "1"))
    assert keep(Conversation(messages, "mine", "zh", "x:1")) == Conversation(messages, "mine", "zh", "x:1")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("What is Tea?", "what  is\ntea?"),
        ("３＋４等于多少？", "3+4等于多少?"),
        ("Vi\u1ec7t Nam", "vie\u0323\u0302t nam"),
    ],
)
def test_the_same_prompt_is_held_out_of_every_source(first, second):
    split = [is_heldout(talk(f"user: {text}", "assistant: x"), n / 200) for text in (first, second) for n in range(200)]
    assert split[:200] == split[200:]
    assert False in split
    assert True in split


def test_joining_instruction_and_input_does_not_move_a_prompt():
    apart = Conversation((Message("user", "翻译。", input="早上好"), Message("assistant", "x")), "a", "zh", "a:1")
    joined = talk("system: s", "user: 翻译。\n早上好", "assistant: another")
    assert [is_heldout(apart, n / 200) for n in range(200)] == [is_heldout(joined, n / 200) for n in range(200)]


def test_about_the_asked_share_is_held_out():
    count = sum(is_heldout(talk(f"user: câu hỏi {n}", "assistant: x"), 0.02) for n in range(10_000))
    assert 150 < count < 250  # 200 expected; the deviation is 14, so this is three and a half of them


@given(st.text())
def test_nothing_or_everything_can_be_held_out(text):
    conversation = talk(f"user: {text}", "assistant: x")
    assert not is_heldout(conversation, 0.0)
    assert is_heldout(conversation, 1.0)


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_contains_the_smaller(text, one, other):
    conversation = talk(f"user: {text}", "assistant: x")
    assert is_heldout(conversation, min(one, other)) <= is_heldout(conversation, max(one, other))


def bad(line):
    return Dropped(f"mine.jsonl:{line}", "invalid JSON", "Expecting value at column 1", is_bad=True)


def test_too_many_bad_rows_refuse_the_source_with_the_first_place(caplog):
    rows = BadRows("mine", 0.01)
    for line in range(1, 201):
        rows.see(bad(line) if line in (20, 40, 60) else SOUND["zh"])
    with pytest.raises(DataError) as caught:
        rows.judge()
    assert str(caught.value) == (
        "data.sources.mine: got 3 bad rows of 200 (1.5%), the first at mine.jsonl:20: invalid JSON (Expecting value at "
        "column 1); expected at most 1.0% (data.max_bad_fraction); try fixing the rows or the source's format, "
        "encoding or rename, or raising data.max_bad_fraction"
    )
    assert caplog.messages == [f"mine.jsonl:{line}: invalid JSON (Expecting value at column 1)" for line in (20, 40, 60)]


def test_bad_rows_up_to_the_limit_are_listed_and_let_pass(caplog):
    caplog.set_level(logging.WARNING)
    rows = BadRows("mine", 0.5)
    for line in range(20):
        rows.see(bad(line) if line < 10 else SOUND["zh"])
    rows.judge()
    assert len(caplog.messages) == 5


def test_rows_that_a_filter_refuses_are_not_bad():
    rows = BadRows("mine", 0.0)
    rows.see(keep(talk("user: hi", "assistant: ")))
    rows.judge()
    assert (rows.num_rows, rows.num_bad) == (1, 0)


def test_a_source_without_rows_is_not_judged_bad():
    BadRows("mine", 0.0).judge()


def test_a_mostly_broken_source_is_refused_before_its_end():
    rows = BadRows("mine", 0.01)
    for line in range(9_999):
        rows.see(bad(line))
    with pytest.raises(DataError, match="10,000 bad rows of 10,000"):
        rows.see(bad(9_999))
