"""BLEU, GLEU and ROUGE as published scripts count them: against NLTK and the package `rouge`, each choice with its own number."""

from __future__ import annotations

import random
import warnings
from typing import Any

import pytest

from babeltune.errors import EvalError
from babeltune.evaluation import metrics
from babeltune.evaluation.metrics import ngrams, variants
from babeltune.evaluation.metrics.tokens import tokens

NAMES = [name for family in variants.FAMILIES for name in variants.variants(family)]
TEXTS = {
    "zh": "头痛三天，建议多喝水、注意休息。如果发烧超过38.5度，请尽快去医院检查血常规！",
    "vi": "Bệnh nhân nên uống nhiều nước và nghỉ ngơi. Nếu sốt cao quá 38.5 độ thì cần đi khám ngay.",
    "en": "Drink enough water and rest. See a doctor soon if the fever lasts for more than 3 days...",
}
REPLY, REFERENCE = "感冒发烧时建议多喝温水，注意休息，必要时去医院检查。", "发烧时要多喝水、注意休息，严重时请尽快去医院就诊检查。"


def _pairs() -> list[tuple[str, str]]:
    """Near and far texts of three languages, with repeated characters and stops in a row."""
    draw = random.Random(0)
    pairs = []
    for text in TEXTS.values():
        others = [other for other in TEXTS.values() if other != text]
        for share in (0.1, 0.3, 0.6):
            changed = "".join(draw.choice("的是水. e") if draw.random() < share else letter for letter in text)
            pairs.append((changed, text))
        pairs += [(other, text) for other in others]
    return [*pairs, (TEXTS["zh"], TEXTS["zh"][:9]), (TEXTS["zh"][:2], TEXTS["zh"]), (REPLY, REFERENCE)]


PAIRS = _pairs()


def _nltk_bleu(reply: Any, references: Any, order: int, weights: str, smoothing: str) -> float:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    chosen = (1 / order,) * order if weights == "cumulative" else (0.0,) * (order - 1) + (1.0,)
    smooth = SmoothingFunction().method1 if smoothing == "method1" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NLTK warns of every count of zero
        return 100 * float(sentence_bleu([list(one) for one in references], list(reply), chosen, smooth))


@pytest.mark.parametrize("smoothing", variants.CHOICES["smooth"])
@pytest.mark.parametrize("weights", variants.CHOICES["weights"])
@pytest.mark.parametrize("kind", variants.CHOICES["tok"])
def test_bleu_equals_nltk_in_every_choice(kind: str, weights: str, smoothing: str) -> None:
    for reply, reference in PAIRS:
        own, other = tokens(reply, kind), tokens(reference, kind)
        for references in ((other,), (other, own[:5])):
            for order in range(1, 5):
                ours = ngrams.bleu(own, references, order, weights, smoothing)
                assert ours == pytest.approx(_nltk_bleu(own, references, order, weights, smoothing), abs=1e-9)


@pytest.mark.parametrize("kind", variants.CHOICES["tok"])
def test_gleu_equals_nltk(kind: str) -> None:
    from nltk.translate.gleu_score import sentence_gleu

    for reply, reference in PAIRS:
        own, other = tokens(reply, kind), tokens(reference, kind)
        for references in ([other], [other, own[:5]]):
            expected = 100 * sentence_gleu([list(one) for one in references], list(own))
            assert ngrams.gleu(own, references) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("grams", variants.CHOICES["grams"])
@pytest.mark.parametrize("kind", variants.CHOICES["tok"])
def test_rouge_equals_the_package_to_the_constant_that_it_adds(kind: str, grams: str) -> None:
    from rouge import Rouge

    package = Rouge(exclusive=grams == "set")
    for reply, reference in PAIRS:
        own, other = tokens(reply, kind), tokens(reference, kind)
        (theirs,) = package.get_scores(" ".join(own), " ".join(other))
        within = 1e-6  # it divides by the sum of precision and recall plus 1e-8
        assert ngrams.rouge_n(own, other, 1, grams) == pytest.approx(100 * theirs["rouge-1"]["f"], abs=within)
        assert ngrams.rouge_n(own, other, 2, grams) == pytest.approx(100 * theirs["rouge-2"]["f"], abs=within)
        assert ngrams.rouge_l(own, other, grams) == pytest.approx(min(100, 100 * theirs["rouge-l"]["f"]), abs=within)


def test_a_text_of_thousands_of_tokens_has_a_longest_common_subsequence() -> None:
    long = tuple("水喝多" * 1000)  # `rouge` stops with a RecursionError
    assert ngrams.rouge_l(long, long[5:], "bag") == pytest.approx(200 * 2995 / 5995)


@pytest.mark.parametrize(
    ("name", "language"), [(name, language) for name in NAMES for language in TEXTS if language != "zh" or ":space" not in name]
)
def test_the_reference_itself_scores_one_hundred_wherever_it_has_four_tokens(name: str, language: str) -> None:
    assert metrics.find(name).measure(TEXTS[language], TEXTS[language], language) == pytest.approx(100.0)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_reply_scores_zero_in_every_variant(name: str) -> None:
    assert metrics.find(name).measure("", REFERENCE, "zh") == 0.0
    assert metrics.find(name).measure(REPLY, "", "zh") == 0.0


def test_the_choice_of_tokens_decides_the_number() -> None:
    found = {name: metrics.find(name).measure(REPLY, REFERENCE, "zh") for name in variants.variants("bleu_4")}
    assert found["bleu_4:char:cumulative:method1"] > 20
    assert found["bleu_4:jieba:cumulative:none"] == 0 < found["bleu_4:jieba:cumulative:method1"] < 20
    assert found["bleu_4:space:cumulative:method1"] == found["bleu_4:space:cumulative:none"] == 0
    assert found["bleu_4:char:individual:none"] < found["bleu_4:char:cumulative:none"]


def test_an_unrelated_second_reference_lifts_bleu() -> None:
    rule = metrics.find("bleu_1")
    assert rule.against(REPLY, [REFERENCE, "建议您温和运动，饮食清淡。"], "zh") > rule.against(REPLY, [REFERENCE], "zh") + 1


def test_sets_and_bags_of_ngrams_give_different_rouge() -> None:
    text, other = "好好好休息，多喝水水", "好休息，喝水"
    values = {
        name: metrics.find(name).measure(text, other, "zh") for name in ("rouge_1:set", "rouge_1:bag", "rouge_l:set", "rouge_l:bag")
    }
    assert values == pytest.approx({"rouge_1:set": 1200 / 13, "rouge_1:bag": 75.0, "rouge_l:set": 1200 / 13, "rouge_l:bag": 75.0})


def test_a_name_without_choices_means_the_first_of_each() -> None:
    for short, long in {
        "bleu_4": "bleu_4:method1:char:cumulative",
        "gleu": "gleu:char",
        "rouge_2": "rouge_2:set",
        "rouge_l:set": "rouge_l:char",
    }.items():
        assert metrics.find(short).signature("zh") == metrics.find(long).signature("zh")
    assert metrics.find("rouge_l").signature("zh") != metrics.find("rouge_l:char").signature("zh")


def test_signatures_of_all_variants_differ_and_name_each_choice() -> None:
    signatures = [metrics.find(name).signature("zh") for name in NAMES]
    assert len(set(signatures)) == len(NAMES)
    assert metrics.find("bleu_4").signature("vi") == (
        "bleu_4|norm:nfc|tok:char|weights:cumulative|smooth:method1|nrefs:1|version:1"
    )
    assert "tok:jieba-0.42" in metrics.find("gleu:jieba").signature("zh")
    assert all(metrics.find(name).higher_is_better for name in NAMES)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "bleu_4:jiebe",
            "got 'bleu_4:jiebe'; expected bleu_4:char or jieba or space, and cumulative or individual, and method1 or none; "
            "try evaluation.metrics=[bleu_4]",
        ),
        ("rouge_1:char:jieba", "got 'rouge_1:char:jieba'; expected rouge_1:char or jieba or space, and set or bag; "),
        ("chrf:char", "got 'chrf:char'; expected chrf, which leaves no choice; try evaluation.metrics=[chrf]"),
        ("bleu_5", "got 'bleu_5'; expected some of exact_match, "),
    ],
)
def test_a_name_that_is_no_variant_is_refused(name: str, words: str) -> None:
    with pytest.raises(EvalError) as caught:
        metrics.find(name)
    assert str(caught.value).startswith(f"evaluation.metrics: {words}")


def test_without_jieba_its_words_are_refused_and_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "jieba_is_there", lambda: False)
    assert metrics.refused("gleu:jieba") == (
        "evaluation.metrics: got 'gleu:jieba' without the package jieba; expected the package; try pip install \".[zh]\""
    )
    assert metrics.refused("gleu:char") is None


def test_accuracy_is_whether_the_reply_begins_with_the_answer() -> None:
    rule = metrics.find("accuracy").measure
    assert [rule(reply, "B", "en") for reply in (" B. two", "B", "The answer is B", "b", "")] == [100.0, 100.0, 0.0, 0.0, 0.0]
    assert rule("anything", "", "en") == 0.0


def test_sacrebleu_metrics_of_several_references_equal_the_library_and_keep_their_signature() -> None:
    import sacrebleu

    for name, library in {"bleu": sacrebleu.sentence_bleu, "chrf": sacrebleu.sentence_chrf}.items():
        rule = metrics.find(name)
        before = rule.signature("en")
        options = {"smooth_method": "exp"} if name == "bleu" else {}
        expected = library("a fine day for a walk", ["a fine day to walk", "the day is fine for a walk"], **options).score
        assert rule.against("a fine day for a walk", ["a fine day to walk", "the day is fine for a walk"], "en") == pytest.approx(
            expected
        )
        assert rule.signature("en") == before
