"""The likeliest label of an item, and how likely each is, whoever is asked beside it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from babeltune.errors import EvalError
from babeltune.evaluation.choosing import choose, label_ids
from babeltune.evaluation.suites.benchmarks import bare
from babeltune.options import RunConfig
from babeltune.records import Item, Reply
from tests.modeling import tiny


def _items() -> list[Item]:
    questions = [
        "Hà Nội?",
        "法国的首都是哪里？" * 3,
        "a",
        "Translate this sentence. " * 3,
        "b c",
        "Thủ đô",
        "x",
        "é🎉",
        "The capital",
    ]
    made = [bare(f"i{n}", text, "A", "t") for n, text in enumerate(questions)]
    return [dataclasses.replace(item, labels=("a", "T", "x")[: 2 + n % 2]) for n, item in enumerate(made)]


def _config(batch: int) -> RunConfig:
    made = tiny.config()
    return dataclasses.replace(made, evaluation=dataclasses.replace(made.evaluation, batch=batch))


def _choose(model: Any, batch: int, items: list[Item] | None = None) -> list[Reply]:
    settings = _config(batch)
    return choose(model, tiny.tokenizer(), items or _items(), settings, tiny.writing(settings), lambda event, **facts: None)


@pytest.mark.parametrize("family", ["llama", "bloom", "gptj"])
def test_a_choice_does_not_depend_on_who_is_asked_together(family: str) -> None:
    model = tiny.model(family)
    alone, together = _choose(model, 1), _choose(model, 8)
    assert [reply.text for reply in alone] == [reply.text for reply in together]
    assert len({reply.logprobs for reply in alone}) == len(alone)
    assert [len(reply.logprobs) for reply in together] == [len(item.labels) for item in _items()]
    for one, other in zip(alone, together, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)  # sums of another order in 32 bits


def test_logprobs_are_those_of_the_next_token() -> None:
    model = tiny.model("llama")
    (reply,) = _choose(model, 1, _items()[:1])
    way = tiny.writing(_config(1))
    (parts,) = way.encoder.encode([[dataclasses.replace(segment) for segment in _segments(way)]])
    ids = torch.tensor([[token for part in parts for token in part]])
    with torch.no_grad():
        expected = model(input_ids=ids).logits[0, -1].double().log_softmax(-1)
    tokens = label_ids(("a", "T"), tiny.tokenizer())
    assert reply.logprobs == pytest.approx(expected[tokens].tolist(), abs=1e-5)
    assert reply == Reply("i0", ("a", "T")[int(expected[tokens].argmax())], "stop", 1, reply.logprobs)


def _segments(way: Any) -> Any:
    from babeltune.data import templates

    return templates.render_prompt(_items()[0].messages, way.template, way.marks)


class _Words:
    """A tokenizer that writes a space before a word, and pieces of two letters."""

    def __call__(self, text: str, *, add_special_tokens: bool) -> Any:
        assert not add_special_tokens
        return type("Written", (), {"input_ids": [0, *(ord(letter) for letter in text)]})


def test_labels_are_told_apart_by_their_first_different_token() -> None:
    assert label_ids(("A", "B"), _Words()) == [ord("A"), ord("B")]
    assert label_ids(("(A)", "(B)"), _Words()) == [ord("A"), ord("B")]


@pytest.mark.parametrize("labels", [("A", "AB"), ("AB", "AC", "B"), ("A", "A")])
def test_labels_that_one_token_does_not_tell_apart_are_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(EvalError, match=r"labels: got .*; expected labels that differ in one token; try another tokenizer"):
        label_ids(labels, _Words())
