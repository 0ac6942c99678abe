"""Word by word gives what text by text gives, and cores change nothing."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babeltune.data import words
from babeltune.data.tokenizing import Encoder
from tests.data.test_tokenizing import TOKENIZERS, _segments, _text

APART = ["prepend", "metaspace", "metaspace_first"]
PIECES = st.sampled_from(["a", "the", "xin", " ", "  ", "\n", "▁", "\0", "你", "é", ".", "</s>", "\t", "quick"])


def parts(kind: str) -> Any:
    """The tokenizer.json that texts are encoded with."""
    return json.loads(Encoder(TOKENIZERS[kind])._backend.to_str())


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_llama_type_tokenizers_take_words_apart_and_others_do_not(kind: str) -> None:
    is_clean = not any("▁" in piece.lstrip("▁") or ("\n" in piece and piece != "\n") for piece in parts(kind)["model"]["vocab"])
    assert words.are_apart(parts(kind)) is (kind in APART and is_clean)


def split_only(kind: str) -> Any:
    """A tokenizer of this kind without the pieces that reach over a space or the end of a line."""
    whole = parts(kind)
    model = whole["model"]
    kept = {one for one in model["vocab"] if "▁" not in one.lstrip("▁") and ("\n" not in one or one == "\n")}
    model["merges"] = [pair for pair in model["merges"] if {*pair, "".join(pair)} <= kept]
    model["vocab"] = {piece: number for number, piece in enumerate(one for one in model["vocab"] if one in kept)}
    for token in whole["added_tokens"]:
        token["id"] = model["vocab"][token["content"]]
    return whole


def pair(kind: str) -> tuple[Encoder, Encoder]:
    """An encoder that goes by words, and one of the same tokenizer that does not."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(split_only(kind))), eos_token="</s>")
    fast, plain = Encoder(tokenizer), Encoder(tokenizer)
    assert fast._words is not None
    plain._words = None
    return fast, plain


PAIRS = {kind: pair(kind) for kind in APART}


@pytest.mark.parametrize("kind", APART)
def test_words_give_the_ids_of_whole_texts(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "MOST_WORDS", 50)
    fast, plain = PAIRS[kind]
    rng = random.Random(kind)
    for _ in range(20):
        rows = [_segments((_text(rng), _text(rng))) for _ in range(50)]
        assert fast.encode(rows) == plain.encode(rows)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_any_text_gives_the_same_ids(text: str) -> None:
    fast, plain = PAIRS["prepend"]
    assert fast._ids([text], is_markup=False) == plain._ids([text], is_markup=False)


@given(st.lists(PIECES, max_size=12).map("".join))
def test_words_in_a_row_are_the_text(text: str) -> None:
    assert "".join(words.words(text)) == text


BROKEN = {
    "a piece over a space": lambda whole: whole["model"]["vocab"].update({"a▁b": 9000}),
    "a piece over a line": lambda whole: whole["model"]["vocab"].update({".\n": 9000}),
    "dropout": lambda whole: whole["model"].update(dropout=0.1),
    "a token that is found in content": lambda whole: whole["added_tokens"].append(
        {"id": 9000, "content": "a b", "special": False}
    ),
    "another normalizer": lambda whole: whole.update(normalizer={"type": "NFKC"}),
    "another model": lambda whole: whole["model"].update(type="Unigram"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_tokenizer_that_may_reach_over_a_space_is_left_alone(what: str) -> None:
    whole = split_only("prepend")
    assert words.are_apart(whole)
    BROKEN[what](whole)
    assert not words.are_apart(whole)


STORE = """
import sys
from pathlib import Path
from tests.data.test_words import PAIRS, _segments, _text
from babeltune.data.store import build_store
from babeltune.records import Conversation, Message
import random
rng = random.Random(5)
rows = [Conversation((Message("user", _text(rng)), Message("assistant", _text(rng))), "s", "en", f"f:{n}") for n in range(3000)]
render = lambda row: _segments((row.messages[0].text, row.messages[1].text))
build_store({}, Path(sys.argv[1]), rows, render, PAIRS["prepend"][int(sys.argv[2])], 64, lambda row: False)
"""


def test_cores_do_not_change_a_byte_of_the_store(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    stores = []
    for name, environment in {
        "one": {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        "four": {"RAYON_NUM_THREADS": "4", "TOKENIZERS_PARALLELISM": "true"},
    }.items():
        for way in ("0", "1"):
            place = tmp_path / name / way
            subprocess.run([sys.executable, "-c", STORE, str(place), way], cwd=root, env=os.environ | environment, check=True)
            stores.append({path.name: path.read_bytes() for path in place.rglob("*") if path.is_file()})
    assert len(stores[0]) == 8
    assert all(store == stores[0] for store in stores)
