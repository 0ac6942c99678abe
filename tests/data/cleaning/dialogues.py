"""Conversations of several turns, and a tokenizer that counts words, for the tests of steps that look at one row."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from babeltune.data.cleaning.kinds import Outcome, Place, RowStep
from babeltune.records import Conversation, Dropped, Message, Role

ROLES: tuple[Role, Role] = ("user", "assistant")

PIECES = st.sampled_from(
    [
        *("```", "```python\n", "\n", "\n\n\n", "<div>", "</div>", "<p>", "</p>", "<pre>", "1 / 2", "Copy code"),
        *("(1)", "① ", "1、", "２）", "1 a", " ", "  ", "\u3000", "a < b", "x@y.vn", "13812345678", "1.5 mg", "1.2.3.4"),
        *("北京", "Hà Nội", "e\u0302\u0301", "😀", "\ufffd", "\ud800"),
    ]
)
TEXTS = st.one_of(st.text(), st.lists(st.one_of(PIECES, st.text(max_size=4)), max_size=12).map("".join))
"""Any text, and texts made of what the steps look for."""


def document(text: str) -> Conversation:
    return Conversation((Message("text", text),), "mine", "en", "a.jsonl:1")


def chat(*texts: str, system: str = "", place: str = "a.jsonl:1", language: str = "en") -> Conversation:
    """User and assistant in turn."""
    head = [Message("system", system)] if system else []
    turns = [Message(ROLES[number % 2], text) for number, text in enumerate(texts)]
    return Conversation((*head, *turns), "mine", language, place)


def roles(*names: Role) -> Conversation:
    """Who speaks, each saying something of his own."""
    return Conversation(
        tuple(Message(role, f"this is number {number}") for number, role in enumerate(names)), "mine", "en", "a.jsonl:1"
    )


def texts(outcome: Outcome) -> list[str]:
    assert isinstance(outcome, Conversation)
    return [message.text for message in outcome.messages]


def reason(outcomes: Iterable[Outcome]) -> tuple[str, str]:
    """Why the only outcome is left out, in general and in particular."""
    (outcome,) = outcomes
    assert isinstance(outcome, Dropped)
    assert not outcome.is_bad
    return outcome.reason, outcome.detail


def only(step: RowStep, row: Conversation) -> Conversation:
    """The only outcome, which is kept."""
    (outcome,) = step(row)
    assert isinstance(outcome, Conversation)
    return outcome


def at(folder: Path = Path()) -> Place:
    return Place(scratch=folder, cache=folder, tokenizer=lambda name: counter())


@cache
def counter() -> Any:
    """A tokenizer with one token for each word and one before the text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"<s>": 0, "<unk>": 1}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", unk_token="<unk>")
