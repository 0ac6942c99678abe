"""Base models and tokenizers from a folder: what loads, and the sentence for what does not."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from babeltune.errors import ModelError
from babeltune.modeling import loading
from babeltune.options import ModelConfig, Precision
from tests.modeling import tiny


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny.save("llama", tmp_path / "base")


@pytest.fixture
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # HF_HUB_OFFLINE=1 as read at import


def _load(path: Path | str, **settings: Any) -> Any:
    return loading.load_base(tiny.config(Path(path), **settings), None, len(tiny.tokenizer()))


def _load_tokenizer(path: Path | str, **settings: Any) -> Any:
    return loading.load_tokenizer(ModelConfig(name="m", path=str(path), **settings), None)


def _refusal(load: Any, *arguments: Any) -> str:
    with pytest.raises(ModelError) as caught:
        load(*arguments)
    return str(caught.value)


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_a_folder_of_safetensors_loads_bit_for_bit(family: str, tmp_path: Path) -> None:
    tiny.save(family, tmp_path)
    assert torch.equal(tiny.logits(_load(tmp_path)), tiny.logits(tiny.model(family)))
    assert _load_tokenizer(tmp_path).get_vocab() == tiny.tokenizer().get_vocab()


@pytest.mark.parametrize(("adapter", "expected"), [("none", torch.float32), ("lora", torch.bfloat16)])
def test_bfloat16_is_for_weights_that_are_frozen(base: Path, adapter: str, expected: torch.dtype) -> None:
    assert {parameter.dtype for parameter in _load(base, adapter=adapter, precision=Precision.bf16).parameters()} == {expected}


def test_a_relative_folder_is_remembered_by_its_whole_path(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(base.parent)
    assert _load("base").name_or_path == str(base)
    monkeypatch.setenv("HOME", str(base.parent))
    assert _load("~/base").name_or_path == str(base)


def test_a_fresh_model_is_its_seed() -> None:
    one, same, other = (loading.fresh_model(tiny.LLAMA, 320, seed) for seed in (0, 0, 1))
    assert torch.equal(one.lm_head.weight, same.lm_head.weight)
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)


def test_an_unknown_architecture_is_refused() -> None:
    assert _refusal(loading.fresh_model, {"model_type": "lama"}, 320, 0) == (
        "model.fresh.model_type: got 'lama'; expected a model type of transformers; try model.fresh.model_type=llama"
    )


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    assert _refusal(_load, tmp_path) == (
        f"model.path: got {tmp_path} without config.json; expected a folder of a transformers model; try model.path=FOLDER"
    )
    missing = tmp_path / "nowhere"
    assert _refusal(_load_tokenizer, missing).startswith(f"model.path: got {missing} without config.json;")


def test_pickled_weights_are_never_loaded(base: Path) -> None:
    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    assert _refusal(_load, base) == (
        f"model.path: got {base} with pytorch_model.bin; expected weights in model.safetensors; "
        "try converting them: a pickled file may run code when it is loaded"
    )


def test_a_folder_without_weights_is_refused(base: Path) -> None:
    (base / "model.safetensors").unlink()
    assert _refusal(_load, base) == (
        f"model.path: got {base} without weights; expected weights in model.safetensors; try downloading it again"
    )


def test_a_weight_that_is_missing_is_not_made_up(base: Path) -> None:
    file = base / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.norm.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    assert _refusal(_load, base) == (
        f"model.path: got {base} without 1 of its weights (model.norm.weight); expected every weight of its architecture; "
        "try downloading or converting it again"
    )


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_cut_short_is_refused(base: Path, name: str) -> None:
    file = base / name
    file.write_bytes(file.read_bytes()[:200])
    got = _refusal(_load, base)
    assert got.startswith(f"model.path: got {base}, which transformers cannot read (")
    assert got.endswith("; expected a causal language model with sound files; try downloading it again, or another model")


@pytest.mark.usefixtures("_offline")
def test_a_hub_id_without_a_connection_is_refused_at_once() -> None:
    started = time.monotonic()
    model, tokenizer = _refusal(_load, "someone/nothing"), _refusal(_load_tokenizer, "someone/nothing")
    assert time.monotonic() - started < 5
    assert model.startswith(
        "model.path: got someone/nothing, which is neither a folder here nor to be had from the hub (We couldn't"
    )
    assert model.endswith("; expected a local folder, or a hub id and a connection; try model.path=FOLDER")
    assert tokenizer.startswith("model.tokenizer: got no tokenizer in someone/nothing (We couldn't connect to")
    assert tokenizer.endswith("; expected a folder, or a hub id and a connection, with tokenizer files; try model.tokenizer=FOLDER")


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_a_folder_without_a_tokenizer_is_refused(family: str, tmp_path: Path) -> None:
    tiny.model(family).save_pretrained(tmp_path)
    assert _refusal(_load_tokenizer, tmp_path).startswith(f"model.tokenizer: got no tokenizer in {tmp_path} (")


def test_a_tokenizer_larger_than_the_model_is_refused(base: Path) -> None:
    settings = tiny.config(base)
    assert _refusal(loading.load_base, settings, None, 1321) == (
        "model.tokenizer: got 1,321 tokens for a model of 320; expected a tokenizer that fits the model; "
        "try model.tokenizer=null for the model's own"
    )


def test_a_tokenizer_with_only_a_slow_form_is_refused(base: Path) -> None:
    (base / "tokenizer.json").unlink()
    (base / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer", "eos_token": "</s>"}))
    assert _refusal(_load_tokenizer, base) == (
        f"model.tokenizer: got ByT5Tokenizer in {base}, which has no fast form; expected a tokenizer.json; "
        "try model.tokenizer=FOLDER of a converted one"
    )


def test_a_tokenizer_without_an_end_mark_is_refused(base: Path) -> None:
    file = base / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token": None}))
    assert _refusal(_load_tokenizer, base).startswith(f"model.tokenizer: got {base} without an end mark; expected an eos_token in")


def test_the_revision_is_of_the_models_own_repository(monkeypatch: pytest.MonkeyPatch, base: Path) -> None:
    asked = []
    real = loading.AutoTokenizer.from_pretrained

    def note(place: str, revision: str | None, trust_remote_code: bool) -> Any:
        asked.append((place, revision, trust_remote_code))
        return real(base)

    monkeypatch.setattr(loading.AutoTokenizer, "from_pretrained", note)
    _load_tokenizer("someone/model", revision="v1")
    _load_tokenizer("someone/model", revision="v1", tokenizer="other/tokenizer")
    _load_tokenizer(base, revision="v1")
    assert asked == [("someone/model", "v1", False), ("other/tokenizer", None, False), (str(base), None, False)]


def test_code_that_comes_with_a_model_is_never_run(base: Path) -> None:
    ran = base / "ran"
    (base / "modeling_own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: ...\n")
    config = json.loads((base / "config.json").read_text())
    maps = {"AutoConfig": "modeling_own.Own", "AutoModelForCausalLM": "modeling_own.Own"}
    (base / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": maps}))
    assert _refusal(_load, base).startswith(f"model.path: got {base}, which transformers cannot read (")
    tokens = json.loads((base / "tokenizer_config.json").read_text())
    own = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["modeling_own.Own", "modeling_own.Own"]}}
    (base / "tokenizer_config.json").write_text(json.dumps(tokens | own))
    with contextlib.suppress(ModelError):  # transformers may fall back to the plain class, which is as good
        _load_tokenizer(base)
    assert not ran.exists()


def test_a_cell_that_trained_nothing_is_no_base(tmp_path: Path) -> None:
    settings = dataclasses.replace(tiny.config(tmp_path))
    assert _refusal(loading.load_base, settings, tmp_path, 320) == (
        f"model.from_cell: got {tmp_path} without a model folder; expected a cell that has been trained; try running it first"
    )
