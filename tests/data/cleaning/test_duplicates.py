"""Of conversations with the same text the first stays."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from babeltune.data.cleaning.duplicates import exact, first_of_each, letters
from babeltune.records import Conversation, Dropped, Message
from babeltune.steps import ExactStep

from .talks import kept, room, talk, talks


def test_the_first_of_the_same_stays_and_the_others_say_whose_they_are(tmp_path: Path) -> None:
    corpus = talks("一", "Phở", "一", "one", "一")
    outcomes = list(exact(ExactStep(), room(tmp_path))(corpus))
    assert [outcome for outcome in outcomes if isinstance(outcome, Conversation)] == [corpus[0], corpus[1], corpus[3]]
    assert outcomes[2] == Dropped("a.jsonl:3", "duplicate", "of a.jsonl:1", language="en")
    assert outcomes[4] == Dropped("a.jsonl:5", "duplicate", "of a.jsonl:1", language="en")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ＡＢＣ１２", "abc12"),
        ("你好， 世界", "你好，世界"),
        ("Chào bạn\n", "CHÀO\u3000BẠN"),
        ("e\u0302\u0301", "\u1ebf"),
        ("Straße", "STRASSE"),
    ],
)
def test_width_case_white_space_and_how_a_letter_is_composed_do_not_count(one: str, other: str, tmp_path: Path) -> None:
    assert letters(one) == letters(other)
    assert kept(exact(ExactStep(), room(tmp_path)), talks(one, other)) == [0]


@pytest.mark.parametrize(("one", "other"), [("má", "ma"), ("东", "東"), ("3+4", "3-4"), ("Yes.", "Yes")])
def test_marks_signs_and_strokes_do_count(one: str, other: str, tmp_path: Path) -> None:
    assert kept(exact(ExactStep(), room(tmp_path)), talks(one, other)) == [0, 1]


def test_an_instruction_with_its_input_is_the_same_as_both_in_one_text(tmp_path: Path) -> None:
    corpus = [talk("Dịch:", "Hello", given="Xin chào"), talk("Dịch: Xin chào", "Hello", "b.jsonl:1")]
    assert kept(exact(ExactStep(), room(tmp_path)), corpus) == [0]


def test_prompts_alone_can_be_compared(tmp_path: Path) -> None:
    document = Conversation((Message("text", "hi"),), "mine", "en", "c:1")
    corpus = [talk("hi", "1"), talk("Hi", "2"), talk("hi!", "1"), document]
    assert kept(exact(ExactStep(), room(tmp_path)), corpus) == [0, 1, 2, 3]
    assert kept(exact(ExactStep(prompt_only=True), room(tmp_path)), corpus) == [0, 2]


def test_what_says_nothing_is_left_to_the_filters_that_know_why(tmp_path: Path) -> None:
    corpus = [talk("", ""), talk(" ", "\n"), Conversation((), "mine", "en", "c:1")]
    assert kept(exact(ExactStep(), room(tmp_path)), corpus) == [0, 1, 2]


def test_a_corpus_of_nothing_gives_nothing(tmp_path: Path) -> None:
    assert list(exact(ExactStep(), room(tmp_path))([])) == []


def test_half_a_surrogate_pair_is_text_like_any_other(tmp_path: Path) -> None:
    assert kept(exact(ExactStep(), room(tmp_path)), talks("a\ud800", "b\ud800", "a\ud800")) == [0, 1]


def test_it_agrees_with_comparing_the_texts_themselves(tmp_path: Path) -> None:
    choice = random.Random(0)
    texts = ["".join(choice.choices("天地Ａaàb ", k=choice.randint(1, 4))) for _ in range(3_000)]
    seen: set[str] = set()
    expected = [n for n, text in enumerate(texts) if letters(text) not in seen and not seen.add(letters(text))]  # type: ignore[func-returns-value]
    empty = {n for n, text in enumerate(texts) if not letters(text)}
    corpus = [Conversation((Message("text", text),), "mine", "zh", "x:1") for text in texts]
    assert kept(exact(ExactStep(), room(tmp_path)), corpus) == sorted({*expected, *empty})


def test_digests_that_share_one_half_are_not_the_same() -> None:
    assert first_of_each(np.array([[1, 2], [1, 3], [2, 2], [1, 3]], np.uint64)).tolist() == [-1, -1, -1, 1]
