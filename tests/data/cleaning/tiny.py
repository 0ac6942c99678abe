"""Tiny random models of every kind that cleaning asks, and a place for steps to work in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from babeltune.data.cleaning.kinds import CorpusStep, Outcome, Place
from babeltune.records import Conversation, Dropped, Message
from tests.modeling import tiny

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


class Rows(list[Conversation]):
    """A corpus in memory."""

    def __iter__(self) -> Iterator[Conversation]:
        return super().__iter__()


def place(folder: Path) -> Place:
    """A new scratch folder beside a cache that stays."""
    number = len(list(folder.glob("scratch*")))
    scratch = folder / f"scratch{number}"
    scratch.mkdir(parents=True)
    return Place(scratch=scratch, cache=folder / "cache", tokenizer=lambda path: tiny.tokenizer())


def talk(text: str, answer: str = "", *, language: str = "en", number: int = 0, given: str = "") -> Conversation:
    if not answer:
        return Conversation((Message("text", text),), "s", language, f"s.jsonl:{number}")
    return Conversation((Message("user", text, given), Message("assistant", answer)), "s", language, f"s.jsonl:{number}")


def documents(texts: Iterable[str], language: str = "en") -> Rows:
    return Rows(talk(text, language=language, number=number) for number, text in enumerate(texts))


def outcomes(step: Callable[..., CorpusStep], options: Any, rows: Rows, where: Place) -> list[Outcome]:
    return list(step(options, where)(rows))


def kept(found: list[Outcome]) -> list[int]:
    """The numbers of the rows that stay."""
    return [number for number, one in enumerate(found) if not isinstance(one, Dropped)]


def drops(found: list[Outcome]) -> dict[str, tuple[str, str]]:
    return {one.place: (one.reason, one.detail) for one in found if isinstance(one, Dropped)}


def enlarged(model: Any) -> Any:
    """With weights large enough for its attention to matter."""
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.2, generator=random)
    return model.eval()


def encoder(folder: Path) -> Path:
    """A BERT that knows no order: texts of the same tokens have the same embedding."""
    torch.manual_seed(0)
    config = BertConfig(vocab_size=tiny.VOCABULARY, max_position_embeddings=128, **SMALL)
    model = enlarged(BertModel(config, add_pooling_layer=False))
    with torch.no_grad():
        model.embeddings.position_embeddings.weight.zero_()
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def classifier(folder: Path, outputs: int = 1, tokenizer: PreTrainedTokenizerFast | None = None) -> Path:
    """A sequence classifier on top of a llama without a pad token."""
    torch.manual_seed(1)
    config = LlamaConfig(vocab_size=tiny.VOCABULARY, max_position_embeddings=256, num_labels=outputs, pad_token_id=None, **SMALL)
    enlarged(AutoModelForSequenceClassification.from_config(config)).save_pretrained(folder)
    (tokenizer or tiny.tokenizer()).save_pretrained(folder)
    return folder
