"""Of conversations that are nearly the same the first stays."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from babeltune.data.cleaning import minhash
from babeltune.data.cleaning.duplicates import letters
from babeltune.data.cleaning.kinds import Place, text_of
from babeltune.data.cleaning.near import near
from babeltune.records import Conversation, Dropped, Message
from babeltune.steps import NearStep

from .talks import kept, room, talk, talks

WORDS = {
    "zh": "中国医生建议每天多喝水少吃盐，研究表明运动有助于健康；学习语言需要时间和耐心。北京上海广州是大城市",
    "vi": "người học tiếng việt cần nhiều thời gian và kiên nhẫn bác sĩ khuyên nên uống nước mỗi ngày để giữ gìn sức khỏe thật tốt",
    "en": "the doctor said that water is good for health and people who learn languages need time patience and a teacher",
}


def units(language: str) -> list[str]:
    return list(WORDS["zh"]) if language == "zh" else WORDS[language].split()


def written(parts: list[str], language: str) -> str:
    return "".join(parts) if language == "zh" else " ".join(parts)


def random_text(choice: random.Random, language: str, low: int = 60, high: int = 120) -> list[str]:
    return choice.choices(units(language), k=choice.randint(low, high) * (3 if language == "zh" else 1))


def changed(choice: random.Random, parts: list[str], language: str, edits: int) -> list[str]:
    """So many words (characters in Chinese) replaced, left out or put in."""
    parts = list(parts)
    for _ in range(edits):
        place, word = choice.randrange(len(parts)), choice.choice(units(language))
        parts[place : place + 1] = choice.choice([[word], [], [parts[place], word]])
    return parts


def planted(language: str, pairs: int, edits: tuple[int, ...]) -> tuple[list[str], list[int]]:
    """Texts, and for each the number of the one that it is a change of, or -1; all shuffled."""
    choice = random.Random(7)
    texts: list[tuple[str, int]] = []
    for pair in range(pairs):
        first = random_text(choice, language)
        texts.append((written(first, language), pair))
        texts.append((written(changed(choice, first, language, choice.choice(edits)), language), pair))
        texts.append((written(random_text(choice, language), language), -1))
    choice.shuffle(texts)
    first_of: dict[int, int] = {}
    origins = []
    for number, (_, pair) in enumerate(texts):
        origins.append(first_of.setdefault(pair, number) if pair >= 0 else -1)
        origins[-1] = -1 if origins[-1] == number else origins[-1]
    return [text for text, _ in texts], origins


def likeness(one: str, other: str) -> float:
    return minhash.jaccard(minhash.grams(letters(f"?\n{one}"), 5), minhash.grams(letters(f"?\n{other}"), 5))


@pytest.mark.parametrize("language", ["zh", "vi", "en"])
def test_planted_near_duplicates_are_found(language: str, tmp_path: Path) -> None:
    texts, origins = planted(language, 150, edits=(1, 2, 3, 4))
    alike = {number for number, first in enumerate(origins) if first >= 0 and likeness(texts[number], texts[first]) >= 0.8}
    dropped = set(range(len(texts))) - set(kept(near(NearStep(), room(tmp_path)), talks(*texts)))
    assert len(alike) > 80
    assert len(alike & dropped) >= 0.95 * len(alike)
    assert dropped <= alike


def test_nothing_is_dropped_that_is_not_like_what_stayed(tmp_path: Path) -> None:
    texts, _ = planted("vi", 100, edits=(1, 3, 6, 12))
    corpus = talks(*texts)
    for row, outcome in zip(corpus, near(NearStep(threshold=0.7), room(tmp_path))(corpus), strict=True):
        if isinstance(outcome, Dropped):
            assert outcome.reason == "near duplicate"
            twin = int(outcome.detail.removeprefix("of a.jsonl:")) - 1
            assert likeness(row.messages[1].text, texts[twin]) >= 0.7


def test_distinct_short_texts_all_stay(tmp_path: Path) -> None:
    short = [f"{a}{sign}{b}等于几" for a in range(10) for sign in "+-" for b in range(10)]
    short += ["好", "好的", "是", "不是", "có", "không", "yes", "no", "a", "b", "ab", "ba", "Hà Nội", "Hà Nam", "1", "2", "12"]
    corpus = [Conversation((Message("text", text),), "mine", "zh", "x:1") for text in short]
    assert kept(near(NearStep(), room(tmp_path)), corpus) == list(range(len(short)))
    again = [Conversation((Message("text", text.upper()),), "mine", "zh", "x:2") for text in short]
    assert kept(near(NearStep(), room(tmp_path)), corpus + again) == list(range(len(short)))


def test_what_says_nothing_is_left_to_the_filters_that_know_why(tmp_path: Path) -> None:
    assert kept(near(NearStep(), room(tmp_path)), [talk("", "")] * 3) == [0, 1, 2]
    assert list(near(NearStep(), room(tmp_path))([])) == []


def test_likeness_is_not_passed_on(tmp_path: Path) -> None:
    """Of a chain in which each is like the next, the first stays, the second goes, and the third, unlike the first, stays."""
    choice = random.Random(3)
    first = random_text(choice, "en", 100, 100)
    second, third = list(first), list(first)
    second[10:14] = third[10:14] = ["quickly"] * 4
    third[60:70] = ["slowly"] * 10
    chain = [written(parts, "en") for parts in (first, second, third)]
    assert likeness(chain[0], chain[1]) >= 0.8
    assert likeness(chain[1], chain[2]) >= 0.8
    assert likeness(chain[0], chain[2]) < 0.8
    assert kept(near(NearStep(), room(tmp_path)), talks(*chain)) == [0, 2]


def test_texts_of_one_mould_are_compared_with_a_bounded_number_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of each text is the same, so that they share bands and none is like another."""
    choice = random.Random(1)
    mould = written(random_text(choice, "zh", 30, 30), "zh")
    corpus = talks(*(mould + written(random_text(choice, "zh", 10, 10), "zh") for _ in range(1_000)))
    candidates = []
    for most in (1_000, 32, 4):
        monkeypatch.setattr("babeltune.data.cleaning.near.MOST", most)
        where = room(tmp_path)
        assert kept(near(NearStep(), where), corpus) == list(range(1_000))
        candidates.append(where.report["candidates"])
        assert where.report["compared"] < 0.1 * candidates[0]
    assert candidates[0] > 200_000
    assert candidates[1] < 100_000
    assert candidates[2] < 20_000


def test_the_same_corpus_gives_the_same_outcome_in_any_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, _ = planted("zh", 60, edits=(1, 3))
    whole = kept(near(NearStep(), room(tmp_path)), talks(*texts))
    monkeypatch.setattr("babeltune.data.cleaning.near.BATCH_CHARACTERS", 500)
    monkeypatch.setattr("babeltune.data.cleaning.near.BLOCK", 7)
    assert kept(near(NearStep(), room(tmp_path)), talks(*texts)) == whole


def test_signatures_estimate_the_jaccard_index_without_bias() -> None:
    choice = random.Random(5)
    errors = []
    for _ in range(400):
        first = random_text(choice, "zh")
        one, other = written(first, "zh"), written(changed(choice, first, "zh", 6), "zh")
        both = minhash.signatures([one, other], 5, 128)
        errors.append((both[0] == both[1]).mean() - minhash.jaccard(minhash.grams(one, 5), minhash.grams(other, 5)))
    assert abs(np.mean(errors)) < 0.008  # four standard errors of 400 estimates of deviation 0.04
    assert np.std(errors) < 0.05  # a binomial share of 128 has at most 0.044


def test_a_signature_does_not_depend_on_the_texts_beside_it() -> None:
    texts = ["好", "a" * 19, "b" * 20, written(random_text(random.Random(1), "vi"), "vi"), "天地玄黄宇宙洪荒" * 3]
    together = minhash.signatures(texts, 5, 16)
    for row, text in zip(together, texts, strict=True):
        assert np.array_equal(minhash.signatures([text], 5, 16)[0], row)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_miss_at_most_one_in_a_hundred_at_the_threshold(threshold: float) -> None:
    bands = minhash.bands_for(threshold, 128)
    assert bands.count * bands.rows <= 128
    assert 1 - bands.chance(threshold) <= 0.01


def test_the_report_says_how_texts_were_compared(tmp_path: Path) -> None:
    where: Place = room(tmp_path)
    long = written(random_text(random.Random(2), "vi"), "vi")
    kept(near(NearStep(), where), talks(long, long + ".", "khác"))
    assert where.report == {"bands": 21, "rows": 6, "missed_at_threshold": 0.0017, "candidates": 1, "compared": 1}
    assert text_of(talks(long)[0]) == f"?\n{long}"
