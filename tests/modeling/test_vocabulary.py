"""The learned tokenizer gives every text back, keeps to its size, and is a function of its texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from babeltune.data.tokenizing import Encoder
from babeltune.errors import ConfigError
from babeltune.modeling.vocabulary import train_tokenizer
from babeltune.records import Segment
from tests.modeling import tiny

TRAPS = [
    "你好，世界！　「中文」",
    "Tiếng Việt: e\u0302\u0301 ơ\u0300 Đường",
    "a  b\tc\r\n\n  d ",
    " leading and trailing ",
    "👩‍👩‍👧🇻🇳✅",
    "\x00\x01\x7f\x85\u200b\ufeff\ufffd",
    "<0x41> <s> </s> <unk> <pad>",
    "▁ĠÂ",
    "",
]


def _round_trip(text: str) -> None:
    encoder = Encoder(tiny.tokenizer())
    (parts,) = encoder.encode([[Segment(text, is_target=True)]])
    assert encoder.decode(parts[0]) == text
    assert tiny.tokenizer().unk_token_id not in parts[0]


@pytest.mark.parametrize("text", TRAPS)
def test_every_text_comes_back(text: str) -> None:
    _round_trip(text)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_comes_back(text: str) -> None:
    _round_trip(text)


def test_transformers_own_encode_and_decode_give_the_text_back_too() -> None:
    for text in TRAPS[:6]:
        ids = tiny.tokenizer().encode(text)
        assert tiny.tokenizer().decode(ids) == text


def test_the_same_texts_give_the_same_tokenizer() -> None:
    one, again = (train_tokenizer(iter(tiny.TEXTS * 4), 330) for _ in range(2))
    assert one.backend_tokenizer.to_str() == again.backend_tokenizer.to_str()


@pytest.mark.parametrize("size", [261, 300, 600])
def test_there_are_no_more_tokens_than_asked_for_even_of_many_characters(size: int) -> None:
    many = "".join(chr(0x4E00 + number) for number in range(2000))
    tokenizer = train_tokenizer([many, *tiny.TEXTS * 20], size)
    assert len(tokenizer) <= size
    assert max(tokenizer.get_vocab().values()) == len(tokenizer) - 1
    assert tokenizer.decode(tokenizer.encode(many)) == many


def test_a_size_without_room_for_text_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        train_tokenizer(tiny.TEXTS, 260)
    assert str(caught.value) == (
        "model.vocabulary: got 260; expected at least 261: 256 bytes, 4 marks and some text; try model.vocabulary=2048"
    )


def test_a_saved_tokenizer_loads_as_it_was(tmp_path: Path) -> None:
    tiny.tokenizer().save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == tiny.tokenizer().get_vocab()
    assert Encoder(loaded).digest == Encoder(tiny.tokenizer()).digest
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "unk_token_id"):
        assert getattr(loaded, name) == getattr(tiny.tokenizer(), name)
    for text in TRAPS:
        assert loaded.encode(text) == tiny.tokenizer().encode(text)
