"""The toy world: its questions, its held-out split, its noisy twin and its plain text."""

from __future__ import annotations

import unicodedata
from collections import Counter

import pytest

from babeltune.data import toyworld
from babeltune.errors import DataError

LANGUAGES = toyworld.LANGUAGES
each_language = pytest.mark.parametrize("language", LANGUAGES)


def prompts(rows):
    return [(row["instruction"], row["input"]) for row in rows]


def is_han(character: str) -> bool:
    return "\u4e00" <= character <= "\u9fff"


def has_vietnamese_marks(text: str) -> bool:
    return any(unicodedata.combining(mark) for mark in unicodedata.normalize("NFD", text)) or "đ" in text.lower()


@each_language
def test_the_same_request_gives_the_same_rows(language):
    first = list(toyworld.instructions(language, 60, 0.5, seed=3))
    assert first == list(toyworld.instructions(language, 60, 0.5, seed=3))
    assert first != list(toyworld.instructions(language, 60, 0.5, seed=4))
    assert toyworld.test_items(language, 30, seed=1) == toyworld.test_items(language, 30, seed=1)
    assert list(toyworld.documents(50, seed=2)) == list(toyworld.documents(50, seed=2))


def test_the_rows_of_a_seed_never_change():
    row = next(toyworld.instructions("en", 1))
    assert row == {"instruction": "Add these two numbers.", "input": "one plus five", "output": "six"}


@each_language
def test_fewer_rows_are_the_first_of_more_rows(language):
    many = list(toyworld.instructions(language, 200, seed=5))
    assert list(toyworld.instructions(language, 40, seed=5)) == many[:40]


@each_language
@pytest.mark.parametrize("seed", [0, 1, 17])
def test_no_training_row_asks_a_test_question(language, seed):
    asked = set(prompts(toyworld.instructions(language, 3000, seed=seed)))
    assert not asked & set(prompts(toyworld.test_items(language, 160, seed=seed + 1)))


@each_language
@pytest.mark.parametrize(("wrong_fraction", "expected"), [(0.0, 0), (0.5, 150), (0.25, 75), (1.0, 300)])
def test_exactly_the_asked_share_of_answers_is_wrong(language, wrong_fraction, expected):
    good = list(toyworld.instructions(language, 300, seed=2))
    noisy = list(toyworld.instructions(language, 300, wrong_fraction, seed=2))
    assert sum(right["output"] != given["output"] for right, given in zip(good, noisy, strict=True)) == expected


@each_language
def test_a_wrong_answer_is_never_right_and_of_the_same_kind(language):
    for task in toyworld.TASKS:
        good = list(toyworld.instructions(language, 400, tasks=[task]))
        noisy = list(toyworld.instructions(language, 400, 1.0, tasks=[task]))
        assert all(right["output"] != given["output"] for right, given in zip(good, noisy, strict=True))
        known = {fact.answer for fact in toyworld._facts(language, task)}
        assert {row["output"] for row in noisy} - known <= ({"十一", "mười một", "eleven"} if task == "add" else set())


@each_language
def test_the_noisy_twin_asks_the_same_questions(language):
    good = toyworld.instructions(language, 300, seed=6)
    noisy = toyworld.instructions(language, 300, 0.5, seed=6)
    assert prompts(good) == prompts(noisy)


@each_language
def test_a_question_has_one_right_answer(language):
    answers = {}
    for row in [*toyworld.instructions(language, 4000), *toyworld.test_items(language, 160)]:
        assert answers.setdefault((row["instruction"], row["input"]), row["output"]) == row["output"]


@each_language
def test_test_items_are_different_and_balanced_over_tasks(language):
    items = toyworld.test_items(language, 160)
    assert set(Counter(item["task"] for item in items).values()) == {160 // len(toyworld.TASKS)}
    assert len(set(prompts(items))) == len({item["id"] for item in items}) == 160


@each_language
def test_rows_are_balanced_over_tasks(language):
    num_tasks = len(toyworld.TASKS)
    of_task = {task: set(prompts(toyworld.instructions(language, 9000, tasks=[task]))) for task in toyworld.TASKS}
    rows = prompts(toyworld.instructions(language, 20 * num_tasks))
    assert [sum(row in asked for row in rows) for asked in of_task.values()] == [20] * num_tasks


def test_each_language_is_written_in_its_own_script():
    assert all(any(map(is_han, row["instruction"])) for row in toyworld.instructions("zh", 300))
    assert all(has_vietnamese_marks(row["instruction"]) for row in toyworld.instructions("vi", 300))
    assert all(row["output"].isascii() for row in toyworld.instructions("en", 300))
    assert all(is_han(character) for row in toyworld.instructions("zh", 300) for character in row["output"])


@each_language
def test_texts_are_in_composed_unicode(language):
    texts = [text for row in toyworld.instructions(language, 500) for text in row.values()]
    texts += [document["text"] for document in toyworld.documents(500, languages=[language])]
    assert all(unicodedata.is_normalized("NFC", text) for text in texts)


def test_documents_hold_no_test_question_and_no_filled_in_form():
    text = "\n".join(document["text"] for document in toyworld.documents(20_000))
    for language in LANGUAGES:
        for instruction, given in prompts(toyworld.test_items(language, 160)):
            assert f"{instruction}\n\n### Input:\n{given}" not in text
            assert given or instruction not in text
    assert {part.split("\n", 1)[0] for part in text.split("### Response:\n")[1:]} == {"..."}


def test_documents_tell_every_held_out_fact_of_the_lexicon():
    text = "\n".join(document["text"] for document in toyworld.documents(40_000))
    for language in LANGUAGES:
        for task in ("translate", "add", "classify", "opposite"):
            for fact in toyworld._facts(language, task):
                assert f"{toyworld._about(language, fact)}\n\n{fact.answer}\n" in text


def test_documents_come_in_the_languages_asked_for():
    assert Counter(document["language"] for document in toyworld.documents(50, languages=["vi"])) == {"vi": 50}
    assert {document["language"] for document in toyworld.documents(50)} == set(LANGUAGES)


def test_an_unknown_language_is_refused_with_the_known_ones():
    with pytest.raises(DataError, match="toy language: got 'cn'; expected zh, vi, en"):
        list(toyworld.instructions("cn", 1))


def test_an_unknown_task_is_refused_with_the_known_ones():
    with pytest.raises(DataError, match=r"toy task: got 'ad'; expected translate, add, .*; try add"):
        toyworld.test_items("en", 1, tasks=["ad"])


def test_a_wrong_fraction_above_one_is_refused():
    with pytest.raises(DataError, match=r"toy wrong_fraction: got 1\.5; expected a share from 0 to 1"):
        list(toyworld.instructions("en", 10, 1.5))


def test_more_test_items_than_there_are_questions_are_refused():
    with pytest.raises(DataError, match="toy test items in en: got 5000; expected at most 160; try a smaller count"):
        toyworld.test_items("en", 5000)
