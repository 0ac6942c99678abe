from __future__ import annotations

import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from babeltune.errors import EvalError
from babeltune.evaluation.metrics import METRICS, TextTokens, corpus_bleu, corpus_bleu_signature, score

TEXTS = {
    "zh": [
        "今天天气很好，我们去公园散步吧。",
        "人工智能（AI）正在改变世界！😀",
        "他说：“学习语言需要时间和耐心。”",
    ],
    "vi": [
        "Hôm nay trời đẹp, chúng ta đi dạo công viên nhé.",
        "Tiếng Việt có sáu thanh điệu khác nhau!",
        unicodedata.normalize("NFD", "Học ngôn ngữ cần thời gian và sự kiên nhẫn 😀."),
    ],
    "en": [
        "The weather is fine today, so let us walk in the park.",
        "Artificial intelligence doesn't sleep! 😀",
        "Learning a language takes time and patience.",
    ],
}
NEAR = {
    "zh": ("今天天气很好，我们去海边散步吧。", "今天天气很好，我们去公园散步吧。"),
    "vi": ("Hôm nay trời đẹp, chúng ta đi dạo bờ biển nhé.", "Hôm nay trời đẹp, chúng ta đi dạo công viên nhé."),
    "en": ("The weather is fine today, so let us walk home.", "The weather is fine today, so let us walk in the park."),
}
GRADED = ("bleu", "chrf", "rouge_l")
LONGER = {"bleu_2", "bleu_3", "bleu_4", "rouge_2"}
"""Metrics that count runs of several tokens in one-token texts too."""


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("text", TEXTS["zh"])
def test_chinese_identity_scores_one_hundred(metric: str, text: str) -> None:
    assert METRICS[metric].measure(text, text, "zh") == 100.0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("text", TEXTS["vi"])
def test_vietnamese_identity_scores_one_hundred(metric: str, text: str) -> None:
    assert METRICS[metric].measure(text, text, "vi") == 100.0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("text", TEXTS["en"])
def test_english_identity_scores_one_hundred(metric: str, text: str) -> None:
    assert METRICS[metric].measure(text, text, "en") == 100.0


@pytest.mark.parametrize("name", sorted(METRICS.keys() - LONGER))
@pytest.mark.parametrize("text", ["是", "Ừ", "Y"])
def test_a_one_word_answer_repeated_scores_one_hundred(text: str, name: str) -> None:
    assert METRICS[name].measure(text, text, language_of(text)) == 100.0


@pytest.mark.parametrize("name", sorted(LONGER))
def test_one_token_has_no_runs_of_two_as_in_the_packages_that_figures_come_from(name: str) -> None:
    assert METRICS[name].measure("是", "是", "zh") < 50


def language_of(text: str) -> str:
    return {"是": "zh", "Ừ": "vi", "Y": "en"}[text]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("language", TEXTS)
def test_an_empty_reply_scores_zero(metric: str, language: str) -> None:
    assert METRICS[metric].measure("", TEXTS[language][0], language) == 0.0


@pytest.mark.parametrize("metric", METRICS)
def test_two_ways_to_type_a_vietnamese_vowel_are_one(metric: str) -> None:
    joined, apart = (unicodedata.normalize(form, TEXTS["vi"][1]) for form in ("NFC", "NFD"))
    assert joined != apart
    assert METRICS[metric].measure(apart, joined, "vi") == 100.0


@pytest.mark.parametrize("metric", GRADED)
@pytest.mark.parametrize("language", NEAR)
def test_a_near_reply_lies_between_none_and_all(metric: str, language: str) -> None:
    reply, reference = NEAR[language]
    assert 30 < METRICS[metric].measure(reply, reference, language) < 95


def test_chinese_that_the_default_tokenizers_call_zero_is_not_zero_here() -> None:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEU

    reply, reference = "我们明天去北京看朋友", "我们今天去北京看朋友"
    assert RougeScorer(["rougeL"]).score(reference, reply)["rougeL"].fmeasure == 0
    assert BLEU().corpus_score([reply], [[reference]]).score == 0
    assert METRICS["rouge_l"].measure(reply, reference, "zh") == pytest.approx(90.0)
    assert METRICS["bleu"].measure(reply, reference, "zh") > 50
    corpus = corpus_bleu([reply], [reference], "zh")
    assert corpus is not None
    assert corpus > 50


def test_chinese_is_counted_by_characters_and_latin_words_in_it_whole() -> None:
    tokens = TextTokens("characters").tokenize("我用GPU训练Model2，好👍！")
    assert tokens == ["我", "用", "gpu", "训", "练", "model2", "好", "👍"]


def test_vietnamese_words_are_not_cut_at_diacritics() -> None:
    words = ["tiếng", "việt", "được", "dùng", "ở", "việt", "nam"]
    sentence = "Tiếng Việt được dùng ở “Việt Nam”…"
    for form in ("NFC", "NFD"):
        assert TextTokens("words").tokenize(unicodedata.normalize(form, sentence)) == words


def test_marks_without_a_joined_letter_stay_with_their_word() -> None:
    assert TextTokens("words").tokenize("हिन्दी भाषा") == ["हिन्दी", "भाषा"]


@pytest.mark.parametrize("reply", [NEAR["en"][0], TEXTS["en"][2], "don't stop at snake_case, 2 of 3"])
def test_english_rouge_equals_the_library_own(reply: str) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    reference = NEAR["en"][1] + " Don't stop, artificial case 2"
    expected = 100 * RougeScorer(["rougeL"]).score(reference, reply)["rougeL"].fmeasure
    assert METRICS["rouge_l"].measure(reply, reference, "en") == pytest.approx(expected)


def test_rouge_is_the_f1_of_the_longest_common_subsequence_by_hand() -> None:
    # 4 of 5 Chinese characters in order, 4 characters replied: P = 1, R = 4/5
    assert METRICS["rouge_l"].measure("我爱北京", "我很爱北京", "zh") == pytest.approx(100 * 2 * 0.8 / 1.8)


@pytest.mark.parametrize(("language", "tokenizer"), [("zh", "zh"), ("vi", "13a"), ("en", "13a"), ("ja", "char")])
def test_bleu_and_chrf_equal_the_direct_library_calls(language: str, tokenizer: str) -> None:
    import sacrebleu
    from sacrebleu.metrics.bleu import BLEU

    reply, reference = NEAR.get(language, NEAR["zh"])
    sentence = sacrebleu.sentence_bleu(reply, [reference], tokenize=tokenizer, smooth_method="exp").score
    corpus = BLEU(tokenize=tokenizer).corpus_score([reply, reference], [[reference, reply]]).score
    assert METRICS["bleu"].measure(reply, reference, language) == pytest.approx(sentence)
    assert corpus_bleu([reply, reference], [reference, reply], language) == pytest.approx(corpus)
    assert METRICS["chrf"].measure(reply, reference, language) == pytest.approx(sacrebleu.sentence_chrf(reply, [reference]).score)


def test_signatures_name_the_tokenisation_of_the_language() -> None:
    for signature in (METRICS["bleu"].signature, METRICS["rouge_l"].signature, corpus_bleu_signature):
        assert signature("zh") != signature("vi")
        assert signature("vi") == signature("en")
        assert signature("zh-Hant") == signature("zh_TW") == signature("zh")
    assert "tok:zh" in METRICS["bleu"].signature("zh")
    assert "tok:characters" in METRICS["rouge_l"].signature("zh")
    assert "tok:words" in METRICS["rouge_l"].signature("vi")


def test_signatures_name_metric_version_references_normalisation_and_smoothing() -> None:
    for name, metric in METRICS.items():
        signature = metric.signature("zh")
        assert signature.startswith(f"{name}|norm:nfc")
        assert "nrefs:1" in signature
        assert "version:" in signature
    assert "smooth:exp" in METRICS["bleu"].signature("en")
    assert METRICS["bleu"].signature("en").replace("bleu", "corpus_bleu", 1) != corpus_bleu_signature("en")


def test_a_signature_is_the_same_before_and_after_scoring() -> None:
    before = [metric.signature("ko") for metric in METRICS.values()]  # a language that no other test has scored
    for metric in METRICS.values():
        metric.measure("네", "네 네", "ko")
    assert [metric.signature("ko") for metric in METRICS.values()] == before


@pytest.mark.parametrize(
    ("reply", "reference", "expected"),
    [
        ("北京。", "北京", 100.0),
        ("北京！", "北京．", 100.0),
        (" Paris. \n", "paris", 100.0),
        ("HÀ NỘI!", "Hà Nội", 100.0),
        ("Straße", "STRASSE", 100.0),
        ("3.14", "314", 0.0),
        ("Ha Noi", "Hà Nội", 0.0),
        ("", "。", 0.0),
        ("。", "。", 100.0),
    ],
)
def test_exact_match_forgives_case_spaces_and_final_punctuation_only(reply: str, reference: str, expected: float) -> None:
    assert METRICS["exact_match"].measure(reply, reference, "vi") == expected


@given(st.text(max_size=40), st.text(max_size=40), st.sampled_from(["zh", "vi", "en", "ja", "xx"]))
def test_every_metric_stays_between_zero_and_one_hundred(reply: str, reference: str, language: str) -> None:
    for metric in METRICS.values():
        assert 0.0 <= metric.measure(reply, reference, language) <= 100.0


def test_corpus_bleu_of_nothing_is_none() -> None:
    assert corpus_bleu([], [], "zh") is None


def test_a_score_is_the_mean_of_the_scored_items_and_counts_the_others() -> None:
    result = score("suite/bleu", {"a": 100.0, "b": None, "c": 50.0}, "sig", higher_is_better=False)
    assert (result.value, result.n, result.unscored) == (75.0, 2, 1)
    assert result.items == {"a": 100.0, "c": 50.0}
    assert not result.higher_is_better


def test_a_score_of_no_items_is_none_and_not_zero() -> None:
    assert score("suite/bleu", {}, "sig").value is None
    nothing = score("suite/bleu", {"a": None}, "sig")
    assert (nothing.value, nothing.n, nothing.unscored) == (None, 0, 1)


def test_a_value_that_is_no_number_is_refused_by_item() -> None:
    with pytest.raises(EvalError) as caught:
        score("suite/bleu", {"q7": math.nan}, "sig")
    assert str(caught.value) == ("suite/bleu: got no number for item q7; expected a number; try None for what cannot be scored")
