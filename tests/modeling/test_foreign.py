"""An adapter that another program saved is judged over its base, is known by its bytes, and is refused where it does not fit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file

from babeltune.cells import cell_of
from babeltune.config import compose
from babeltune.errors import ModelError
from babeltune.modeling import adapters, loading
from babeltune.options import PathsConfig, RunConfig
from babeltune.runner import run
from tests.modeling import tiny

KINDS: dict[str, Any] = {
    "lora": LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False),
    "lora of no task": LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False),
    "prompt": PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
    "prefix": PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save("llama", tmp_path_factory.mktemp("base") / "llama")


def saved(kind: str, base: Path, folder: Path) -> tuple[Path, torch.Tensor]:
    """An adapter on disk, and the logits of the model that it was saved from."""
    torch.manual_seed(0)
    lm = tiny.model("llama")
    lm.name_or_path = str(base)
    model = get_peft_model(lm, dataclasses.replace(KINDS[kind]))
    logits = tiny.logits(model)
    model.save_pretrained(str(folder), save_embedding_layers=False)
    return folder, logits


def asking(folder: Path, outputs: Path, *overrides: str) -> RunConfig:
    words = ["model=adapter", f"model.adapter={folder}", "data=none", "evaluation=toy_zh", "evaluation.max_items=4", "logger=none"]
    return dataclasses.replace(compose([*words, "decoding.max_new_tokens=4", *overrides]), paths=PathsConfig(outputs=str(outputs)))


def loaded(folder: Path, base: Path) -> Any:
    config = tiny.config(base)
    return adapters.load_foreign(loading.load_folder(str(base), config), folder, tiny.VOCABULARY)


@pytest.mark.parametrize("kind", KINDS)
def test_the_logits_are_those_of_the_model_that_was_saved_and_not_the_bases(kind: str, base: Path, tmp_path: Path) -> None:
    folder, expected = saved(kind, base, tmp_path / "adapter")
    found = tiny.logits(loaded(folder, base))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)  # one forward pass in float32
    assert not torch.allclose(found[:, -4:], tiny.logits(tiny.model("llama"))[:, -4:], atol=1e-3)


def test_the_base_is_the_one_that_the_adapter_names_unless_another_is_given(base: Path, tmp_path: Path) -> None:
    folder, _ = saved("lora", base, tmp_path / "adapter")
    own = asking(folder, tmp_path)
    assert own.model.path == str(base)
    given = asking(folder, tmp_path, "model.path=elsewhere", "model.revision=abc")
    assert (given.model.path, given.model.revision) == ("elsewhere", "abc")
    over = compose(["model=bloomz_7b1", f"model.adapter={folder}", "data=none", "scale=quick"])
    assert over.model.standin is None
    assert over.model.path is not None
    assert "bloomz" in over.model.path


def test_a_cell_is_known_by_the_bytes_of_adapter_and_base(base: Path, tmp_path: Path) -> None:
    folder, _ = saved("lora", base, tmp_path / "adapter")
    cell = cell_of(asking(folder, tmp_path))
    (folder / "README.md").write_text("words")
    folder.rename(tmp_path / "moved")
    assert cell_of(asking(tmp_path / "moved", tmp_path)).identity == cell.identity
    bare = cell_of(asking(tmp_path / "moved", tmp_path, f"model.path={base}", "model.adapter=null"))
    assert bare.identity != cell.identity
    state = load_file(tmp_path / "moved" / "adapter_model.safetensors")
    save_file({name: tensor + 1 for name, tensor in state.items()}, tmp_path / "moved" / "adapter_model.safetensors")
    assert cell_of(asking(tmp_path / "moved", tmp_path)).identity != cell.identity


def test_it_is_a_row_like_any_other(base: Path, tmp_path: Path) -> None:
    folder, _ = saved("lora", base, tmp_path / "adapter")
    result = run(asking(folder, tmp_path))
    bare = run(asking(folder, tmp_path, f"model.path={base}", "model.adapter=null"))
    assert result.cell.startswith("none-adapter-")
    assert result.scores["toy_zh/loss"].value != bare.scores["toy_zh/loss"].value
    assert result.scores["toy_zh/loss"].n == 4


def refused(folder: Path, base: Path) -> str:
    with pytest.raises(ModelError) as caught:
        loaded(folder, base)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_what_does_not_fit_is_refused_in_one_sentence(base: Path, tmp_path: Path) -> None:
    folder, _ = saved("lora", base, tmp_path / "adapter")
    place = folder / "adapter_model.safetensors"
    state = load_file(place)
    expected = "expected an adapter of this base; try model.path=FOLDER of its own base"
    save_file({name.replace("self_attn", "attention"): tensor for name, tensor in state.items()}, place)
    assert refused(folder, base).startswith(f"model.adapter: got {folder}, which does not fit {base} (Found missing adapter keys")
    save_file(state | {"base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight": torch.ones(4, 64)}, place)
    said = f"model.adapter: got {folder} with 1 weights that have no place in {base} (base_model.model.model.layers.9"
    assert refused(folder, base).startswith(said)
    save_file({name: torch.ones(len(tensor), 3) for name, tensor in state.items()}, place)
    assert refused(folder, base).endswith(expected)
    save_file({name: torch.zeros_like(tensor) for name, tensor in state.items()}, place)
    assert refused(folder, base).startswith(
        f"model.adapter: got {folder}, which changes nothing in {base}; expected trained weights"
    )
    other = tiny.save("bloom", tmp_path / "bloom")
    save_file(state, place)
    assert refused(folder, other).endswith(expected)


def test_folders_that_are_no_adapters_are_refused_before_anything_runs(base: Path, tmp_path: Path) -> None:
    def said(folder: Path) -> str:
        config = asking(folder, tmp_path)
        with pytest.raises(ModelError) as caught:
            cell_of(config)
        return str(caught.value)

    assert said(tmp_path / "none").startswith(
        f"model.adapter: got {tmp_path}/none without adapter_config.json and adapter_model.safetensors; "
        "expected a folder that peft saved; try the `adapter` folder of a cell"
    )
    folder, _ = saved("lora", base, tmp_path / "adapter")
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": None}))
    assert "which names no base; expected a base_model_name_or_path; try model.path=FOLDER of its base" in said(folder)
    (folder / "adapter_config.json").write_text("{}")
    assert "adapter_config.json without a peft_type; expected the settings of an adapter" in said(folder)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    assert "with a pickled adapter_model.bin; expected a folder that peft saved; try saving it with peft as safetensors" in said(
        folder
    )
