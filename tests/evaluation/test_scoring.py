"""Replies and losses become scores: all items counted, each language apart, each with how it was made."""

from __future__ import annotations

import dataclasses

import pytest

from babeltune.errors import EvalError
from babeltune.evaluation.metrics import METRICS
from babeltune.evaluation.scoring import reply_table, score
from babeltune.options import RunConfig
from babeltune.records import Item, Message, Reply
from tests.modeling import tiny

WRITTEN = {"template": "0123456789", "tokenizer": "abcdefghij"}


def _config(*metrics: str) -> RunConfig:
    made = tiny.config()
    return dataclasses.replace(made, evaluation=dataclasses.replace(made.evaluation, name="s", metrics=list(metrics)))


def _item(name: str, language: str, reference: str) -> Item:
    return Item(name, (Message("user", "问", input="输入"),), reference, "t", language)


ITEMS = [_item("a", "zh", "你好"), _item("b", "zh", "再见"), _item("c", "vi", "Xin chào"), _item("d", "vi", "Hà Nội")]
REPLIES = [Reply("a", "你好", "stop", 2), Reply("b", "", "stop", 0), Reply("c", "xin chào.", "length", 3)]
LOSSES = {"a": (3.0, 1), "b": (1.0, 3), "c": (4.0, 4)}


def test_each_metric_and_the_loss_is_over_all_items_and_over_each_language() -> None:
    scores = score(_config("exact_match", "chrf"), ITEMS, REPLIES, LOSSES, WRITTEN)
    names = [f"s/{metric}{group}" for metric in ("exact_match", "chrf", "loss") for group in ("", "_zh", "_vi")]
    assert list(scores) == names
    assert {name: one.name for name, one in scores.items()} == {name: name for name in names}


def test_an_item_without_a_reply_is_counted_and_in_no_mean() -> None:
    scores = score(_config("exact_match"), ITEMS, REPLIES, LOSSES, WRITTEN)
    whole, vi = scores["s/exact_match"], scores["s/exact_match_vi"]
    assert (whole.value, whole.n, whole.unscored) == (pytest.approx(200 / 3), 3, 1)
    assert dict(whole.items) == {"a": 100.0, "b": 0.0, "c": 100.0}
    assert (vi.value, vi.n, vi.unscored) == (100.0, 1, 1)


def test_a_language_without_any_reply_has_no_value() -> None:
    one = score(_config("exact_match"), ITEMS, REPLIES[:2], {}, WRITTEN)
    assert (one["s/exact_match_vi"].value, one["s/exact_match_vi"].n, one["s/exact_match_vi"].unscored) == (None, 0, 2)
    assert (one["s/loss"].value, one["s/loss"].n, one["s/loss"].unscored) == (None, 0, 4)


def test_the_loss_is_a_mean_over_tokens() -> None:
    scores = score(_config(), ITEMS, REPLIES, LOSSES, WRITTEN)
    whole, zh = scores["s/loss"], scores["s/loss_zh"]
    assert (whole.value, whole.n, whole.unscored, whole.higher_is_better) == (1.0, 3, 1, False)
    assert zh.value == 1.0
    assert dict(zh.items) == {"a": 3.0, "b": pytest.approx(1 / 3)}


def test_a_signature_names_how_each_language_is_measured() -> None:
    scores = score(_config("bleu"), ITEMS, REPLIES, LOSSES, WRITTEN)
    signature = scores["s/bleu"].signature
    assert signature == f"{scores['s/bleu_vi'].signature} | {scores['s/bleu_zh'].signature}"
    assert scores["s/bleu_vi"].signature.startswith("vi: bleu|norm:nfc|")
    assert "tok:13a" in scores["s/bleu_vi"].signature
    assert "tok:zh" in scores["s/bleu_zh"].signature


def test_losses_over_other_tokens_have_another_signature() -> None:
    first = score(_config(), ITEMS, [], LOSSES, WRITTEN)["s/loss"].signature
    assert first == "nats per reference token, end mark included|mean:tokens|template:01234567|tokenizer:abcdefgh"
    assert score(_config(), ITEMS, [], LOSSES, WRITTEN | {"tokenizer": "other"})["s/loss"].signature != first


def test_a_metric_that_is_not_there_is_refused() -> None:
    with pytest.raises(EvalError) as caught:
        score(_config("blue"), ITEMS, REPLIES, LOSSES, WRITTEN)
    assert str(caught.value) == (
        f"evaluation.metrics: got 'blue'; expected some of {', '.join(METRICS)}; try evaluation.metrics=[bleu]"
    )


def test_the_table_of_replies_shows_question_reference_and_reply_side_by_side() -> None:
    columns, rows = reply_table(ITEMS[:1], REPLIES[:1])
    assert dict(zip(columns, rows[0], strict=True)) == {
        "item": "a",
        "language": "zh",
        "category": "t",
        "prompt": "问\n输入",
        "reference": "你好",
        "reply": "你好",
        "finish": "stop",
    }
