"""The main language of a conversation is found, written down and chosen by."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings

from babeltune.data.cleaning.kinds import text_of
from babeltune.data.cleaning.languages import Found, language, look
from babeltune.errors import ConfigError
from babeltune.records import Conversation
from babeltune.steps import LanguageStep

from .dialogues import TEXTS, at, chat, document, only, reason

VI = "Bạn có thể giải thích vì sao bầu trời có màu xanh không?"
VI_PLAIN = "Ban co the giai thich cho toi vi sao bau troi co mau xanh khong?"
ZH = "请你解释一下天空为什么是蓝色的，最好举一个例子。"
EN = "Could you explain why the sky is blue, and what that has to do with light?"
STEP = language(LanguageStep(), at())
"""One for all: lingua's models are loaded once."""


def tag(text: str) -> str:
    return only(STEP, chat(text, text, language="xx")).language


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ZH, "zh"),
        ("請問臺灣的首都在哪裡？", "zh"),
        (VI, "vi"),
        (unicodedata.normalize("NFD", VI), "vi"),
        (VI.upper(), "vi"),
        (VI_PLAIN, "vi"),
        ("Xin chao, ban co khoe khong? Toi muon hoi mot cau.", "vi"),
        (EN, "en"),
        ("What is the capital of France? The capital of France is Paris.", "en"),
        ("日本の首都は東京です。天気がいいですね。", "ja"),
        ("明日東京駅で友達と会います。", "ja"),
        ("这个日语词“ありがとう”的意思是谢谢，用来表示感谢。", "zh"),
        ("서울은 한국의 수도이고 인구가 많습니다.", "ko"),
        ("Москва является столицей России, и это большой город.", "ru"),
        ("La capitale de la France est Paris, et c'est une très belle ville où j'habite.", "fr"),
        ("Saya ingin belajar bahasa Inggris dan makan nasi goreng di rumah.", "id"),
        ("Capitala României este o țară frumoasă și mare, unde trăiesc mulți oameni.", "ro"),
        ("สวัสดีครับ วันนี้อากาศดีมาก", "th"),
    ],
)
def test_a_language_is_recognised(text: str, expected: str) -> None:
    assert tag(text) == expected


@pytest.mark.parametrize(
    "text",
    ["12345 67890", "😀👍", "```python\nprint('hello')\n```", "x = 3\ny = x + 4;", "https://a.vn/b", "`foo bar`", "C-B-A-D", ""],
)
def test_digits_signs_and_code_have_no_language_and_keep_the_one_they_came_with(text: str) -> None:
    assert tag(text) == "xx"
    drop = language(LanguageStep(unknown="drop"), at())
    assert reason(drop(chat(text, text))) == ("unknown language", "")


def test_code_in_a_chinese_answer_does_not_make_it_english() -> None:
    code = "\n".join("for value in the_list_of_values_that_you_have: print(value)" for _ in range(9))
    assert tag(f"{ZH}\n```python\n{code}\n```") == "zh"
    assert tag("我想用 Python 写一个 function 来处理 data frame，请 help me 看看") == "zh"


def test_an_unsure_language_is_unknown_below_the_confidence() -> None:
    assert tag("Hello") == "xx"
    assert only(language(LanguageStep(confidence=0.0), at()), chat("Hello", "Hello")).language != "xx"


def test_only_the_languages_kept_stay_and_the_drop_names_the_other() -> None:
    step = language(LanguageStep(keep=["zh", "en"]), at())
    assert only(step, chat(ZH, ZH, language="mixed")).language == "zh"
    assert only(step, document(EN)).language == "en"
    (outcome,) = step(chat(VI, VI))
    assert reason([outcome]) == ("other language", "vi")
    assert outcome.language == "vi"


def test_a_row_that_has_its_language_already_stays_the_same() -> None:
    row = chat(VI, VI, language="vi")
    assert only(STEP, row) is row


def test_mixed_conversations_go_when_asked_and_stay_by_their_main_language_when_not() -> None:
    row = chat(f"{ZH}{ZH}", f"{ZH}{EN}{EN}")
    assert only(STEP, row).language == "zh"
    drop = language(LanguageStep(on_mixed="drop", mixed=0.2), at())
    what, detail = reason(drop(row))
    assert what == "mixed languages"
    assert detail.startswith("zh and ")
    assert only(drop, chat(ZH, f"{ZH} Python")).language == "zh"


def test_two_languages_of_one_script_are_told_apart_by_lines() -> None:
    def asked(text: str) -> tuple[str, float]:
        raise AssertionError(text)

    found = look(f"{VI}\n{VI}\n{EN}", asked)
    assert found.tag == "vi"
    assert 0.3 < found.other_fraction < 0.5
    assert look(f"{VI}\n{VI}", asked).other_fraction == 0


def test_lingua_is_not_asked_what_script_and_words_say() -> None:
    def asked(text: str) -> tuple[str, float]:
        raise AssertionError(text)

    for text, expected in ((ZH, "zh"), (VI, "vi"), (VI_PLAIN, "vi"), (EN, "en"), ("日本の首都です", "ja"), ("서울입니다", "ko")):
        assert look(text, asked) == Found(expected, 1.0, 0.0)


def test_the_report_counts_what_was_found() -> None:
    place = at()
    step = language(LanguageStep(keep=["zh"]), place)
    for text in (ZH, ZH, EN, "123"):
        step(chat(text, text))
    assert place.report == {"found": {"zh": 2, "en": 1, "unknown": 1}}


def test_a_language_that_is_not_compared_is_when_it_is_to_be_kept() -> None:
    text = "Salve, quid agis hodie? Caesar in Galliam cum legionibus suis contendit."
    assert only(language(LanguageStep(keep=["la"]), at()), document(text)).language == "la"


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^language\.keep: got chinese; expected short tags of languages such as zh, vi, en; try"
    ):
        language(LanguageStep(keep=["zh", "chinese"]), at())


@settings(deadline=None, max_examples=40)  # the first text of a script loads lingua's models
@given(TEXTS)
def test_any_text_has_one_outcome_and_its_words_stay(text: str) -> None:
    row = chat(text, text)
    found = only(STEP, row)
    assert isinstance(found, Conversation)
    assert text_of(found) == text_of(row)
    assert only(STEP, row) == found
