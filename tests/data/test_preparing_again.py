"""What is tokenised once is not tokenised again, whatever mix asks for it, and is there at once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from babeltune import compose
from babeltune.data import preparing
from babeltune.data.tokenizing import Encoder
from babeltune.options import RunConfig
from tests.data.test_tokenizing import TOKENIZERS


def config(*overrides: str) -> RunConfig:
    return compose(["model=tiny_fresh", "template=belle", *overrides])


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many conversations each call of the encoder was given."""
    calls: list[int] = []
    really = Encoder.encode

    def encode(self: Encoder, conversations: Any) -> list[list[list[int]]]:
        calls.append(len(conversations))
        return really(self, conversations)

    monkeypatch.setattr(Encoder, "encode", encode)
    return calls


def test_a_new_mix_of_known_sources_tokenises_nothing(tmp_path: Path, encoded: list[int]) -> None:
    tokenizer = TOKENIZERS["prepend"]
    tokenizer.eos_token, tokenizer.bos_token = "</s>", "<s>"
    way = preparing.writing(config("data=toy_zh"), tokenizer)
    for mix in ("toy_zh", "toy_en", "toy_vi"):
        preparing.prepare(config(f"data={mix}"), way, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("tokens/*/*")}
    assert sum(encoded) > 0
    encoded.clear()

    asked = config("data=toy_all", "data.max_rows=500", "seed=3")
    started = time.process_time()
    mixed = preparing.prepare(asked, way, tmp_path)
    taken = time.process_time() - started

    assert len(mixed.parts) == 3
    assert encoded == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("tokens/*/*")} == before
    assert taken < 1


def test_the_encoder_of_a_tokenizer_is_made_once_until_something_is_added_to_it() -> None:
    tokenizer = TOKENIZERS["metaspace"]
    tokenizer.eos_token, tokenizer.bos_token = "</s>", "<s>"
    first = preparing.writing(config("data=toy_zh"), tokenizer)
    assert preparing.writing(config("data=toy_en"), tokenizer).encoder is first.encoder
    tokenizer.add_tokens(["<new>"])
    assert preparing.writing(config("data=toy_en"), tokenizer).encoder.digest != first.encoder.digest
