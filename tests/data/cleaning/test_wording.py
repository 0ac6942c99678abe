"""Numbering in one style, answers long enough, and the words of a corpus."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babeltune.data.cleaning.wording import Tally, numbering, renumbered, short_answers, words, words_of
from babeltune.records import Conversation
from babeltune.steps import NumberingStep, ShortAnswersStep, WordsStep

from .dialogues import TEXTS, at, chat, document, only, reason, texts


@pytest.mark.parametrize(
    ("line", "clean"),
    [
        ("(1) 多喝水", "1. 多喝水"),
        ("（2）多休息", "2. 多休息"),
        ("（3）、发热", "3. 发热"),
        ("4) Uống nước", "4. Uống nước"),
        ("5）睡觉", "5. 睡觉"),
        ("6、Ngủ", "6. Ngủ"),
        ("7). Sleep", "7. Sleep"),
        ("① 走路", "1. 走路"),
        ("⑩走路", "10. 走路"),
        ("⑳ 走路", "20. 走路"),
        ("⑴ 走路", "1. 走路"),
        ("⒈走路", "1. 走路"),
        ("❿ walk", "10. walk"),
        ("１）全角", "1. 全角"),
        ("  (12) indented", "  12. indented"),
        ("\u3000\u3000（1）首先", "\u3000\u30001. 首先"),
        ("（1）1.5 mg mỗi ngày", "1. 1.5 mg mỗi ngày"),
        ("1、2023年的事", "1. 2023年的事"),
    ],
)
def test_every_style_of_number_becomes_one(line: str, clean: str) -> None:
    assert renumbered(line) == clean
    assert renumbered(f"如下：\n{line}\n{line}") == f"如下：\n{clean}\n{clean}"


@pytest.mark.parametrize(
    "text",
    [
        *("1. một", "1.5 mg", "2023-01-01", "2023年1月", "1、2月会下雪", "1) = 3", "(1)", "(2023) 年", "f(1) = 2", "100) x"),
        *("见(1)和（2）", "①和②都对", "①②都对", "1 cup of sugar\n2 eggs", "3 年前", "10 kg", "    (1) code", "1、", "(1)+(2)"),
        *("```\n(1) a\n1) b\n① c\n```", "~~~\n(1) a", "1 a\n\n2 b\n\n3 c", "2 b\n3 c\n4 d", "1 2 3\n2 3 4\n3 4 5"),
    ],
)
def test_what_is_no_number_of_an_item_stays(text: str) -> None:
    assert renumbered(text) == text


def test_bare_numbers_are_items_when_they_count_line_by_line() -> None:
    assert renumbered("做法：\n1 洗菜\n2 切菜\n3 炒菜\n完") == "做法：\n1. 洗菜\n2. 切菜\n3. 炒菜\n完"


def test_after_the_code_numbering_goes_on() -> None:
    assert renumbered("1) a\n```\n1) b\n```\n2) c") == "1. a\n```\n1) b\n```\n2. c"


def test_answers_and_documents_are_renumbered_and_questions_are_not() -> None:
    step = numbering(NumberingStep(), at())
    assert texts(only(step, chat("(1) 什么？", "(1) 水"))) == ["(1) 什么？", "1. 水"]
    assert texts(only(step, document("(1) nước"))) == ["1. nước"]
    row = chat("(1) a", "1. b")
    assert only(step, row) is row


@settings(deadline=None)
@given(TEXTS)
def test_renumbering_twice_changes_nothing_more(text: str) -> None:
    once = renumbered(text)
    assert renumbered(once) == once
    assert once.count("\n") == text.count("\n")
    assert bool(once.strip()) == bool(text.strip())


def test_answers_that_are_too_short_together_are_dropped() -> None:
    step = short_answers(ShortAnswersStep(min_tokens=4), at())
    long = chat("a b c d e", "một hai", "more?", "ba bốn")
    assert only(step, long) is long
    assert reason(step(chat("a b c d e", "một hai ba"))) == ("short answer", "3 tokens")
    assert reason(step(chat("only asked"))) == ("short answer", "0 tokens")
    assert only(step, document("x")) == document("x")


def test_words_are_counted_by_language_and_rows_pass_as_they_are() -> None:
    rows = [
        chat("多喝水，多喝水！", "好", language="zh"),
        chat("Uống nước", "uống NƯỚC đi", language="vi"),
        chat("a", "a b", language="en"),
    ]
    place = at()
    assert [one is row for one, row in zip(words(WordsStep(top=2), place)(rows), rows, strict=True)] == [True] * 3
    assert place.report == {
        "en": {"words": 3, "too_low_by": 0, "top": [["a", 2], ["b", 1]]},
        "vi": {"words": 5, "too_low_by": 0, "top": [["nước", 2], ["uống", 2]]},
        "zh": {"words": 4, "too_low_by": 0, "top": [["喝水", 2], ["多喝", 2]]},
    }


def test_vietnamese_words_are_the_same_however_their_marks_are_written() -> None:
    assert list(words_of("nước NU\u031bO\u031b\u0301C don't x2 日本の")) == ["日本", "本の", "nước", "nước", "don't", "x"]


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdefghij"), max_size=9), max_size=30), st.integers(2, 6))
def test_a_bounded_count_is_never_too_high_and_too_low_by_no_more_than_said(texts: list[list[str]], limit: int) -> None:
    tally = Tally(limit)
    for text in texts:
        tally.add(text)
        assert len(tally.counts) <= limit
    flat = [word for text in texts for word in text]
    assert tally.total == len(flat)
    for word in set(flat):
        assert flat.count(word) - tally.too_low_by <= tally.counts[word] <= flat.count(word)


@settings(deadline=None)
@given(TEXTS)
def test_any_text_can_be_counted(text: str) -> None:
    place = at()
    (row,) = words(WordsStep(), place)([chat(text, text)])
    assert isinstance(row, Conversation)
    assert place.report["en"]["words"] == 2 * len(list(words_of(text)))
