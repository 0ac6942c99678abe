"""What is trained, in which numbers, and whether it comes back as it went."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from babeltune.data.rows import Document, collate
from babeltune.errors import ConfigError, ModelError
from babeltune.modeling import adapters, loading
from babeltune.modeling.loss import target_losses
from babeltune.options import Precision, RunConfig
from tests.modeling import tiny


def _step(model: Any, learning_rate: float = 1e-3) -> float:
    """One optimizer step on one document."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate)
    ids = np.arange(4, 40, dtype=np.int32)
    batch = collate([[Document(ids, ids > 9, 0)]], pad_id=0)
    model.train()
    losses = target_losses(model, batch.input_ids_BT, batch.position_ids_BT, batch.document_ids_BT, batch.labels_BT)
    losses.mean().backward()
    optimizer.step()
    return float(losses.detach().mean())


def _attached(folder: Path, family: str, precision: Precision = Precision.fp32, adapter: str = "lora") -> tuple[Any, RunConfig]:
    settings = tiny.config(folder, adapter=adapter, targets=tiny.TARGETS[family], precision=precision)
    return adapters.attach(loading.load_base(settings, None, len(tiny.tokenizer())), settings), settings


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save("llama", tmp_path_factory.mktemp("base") / "llama")


PRECISIONS = [(precision, "lora") for precision in Precision] + [(Precision.fp32, "none"), (Precision.bf16, "none")]


@pytest.mark.parametrize(("precision", "adapter"), PRECISIONS)
def test_what_is_trained_is_float32_and_a_small_step_changes_all_of_it(llama: Path, precision: Precision, adapter: str) -> None:
    model, _ = _attached(llama, "llama", precision, adapter)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # at zero, lora_A has no gradient yet
            torch.nn.init.normal_(parameter, std=0.02)
    before = {name: tensor.clone() for name, tensor in adapters.trainable_state(model).items()}
    assert before
    assert {tensor.dtype for tensor in before.values()} == {torch.float32}
    _step(model, learning_rate=1e-5)
    after = adapters.trainable_state(model)
    assert not [name for name in before if torch.equal(before[name], after[name])]


@pytest.mark.parametrize("precision", list(Precision))
def test_frozen_weights_stay_as_they_were(llama: Path, precision: Precision) -> None:
    model, _ = _attached(llama, "llama", precision)
    frozen = {name: parameter.clone() for name, parameter in model.named_parameters() if not parameter.requires_grad}
    _step(model)
    assert all(torch.equal(frozen[name], parameter) for name, parameter in model.named_parameters() if name in frozen)
    kinds = {parameter.dtype for parameter in frozen.values()}
    expected = {
        Precision.fp32: {torch.float32},
        Precision.bf16: {torch.bfloat16},
        Precision.int8: {torch.float32, torch.int8},
        Precision.nf4: {torch.float32, torch.uint8},
    }
    assert kinds == expected[precision]


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_every_module_of_the_adapter_has_learnt_after_two_steps(family: str, tmp_path: Path) -> None:
    model, _ = _attached(tiny.save(family, tmp_path), family)
    for _ in range(2):
        _step(model)
    moved = {name: bool(tensor.any()) for name, tensor in adapters.trainable_state(model).items() if "lora_B" in name}
    assert len(moved) == 2 * len(tiny.TARGETS[family])
    assert all(moved.values())


def test_the_seed_alone_decides_the_initial_adapter(llama: Path) -> None:
    one, settings = _attached(llama, "llama")
    torch.manual_seed(99)
    again, _ = _attached(llama, "llama")
    base = loading.load_base(settings, None, len(tiny.tokenizer()))
    other = adapters.attach(base, dataclasses.replace(settings, seed=1))
    first = adapters.trainable_state(one)
    assert all(torch.equal(first[name], tensor) for name, tensor in adapters.trainable_state(again).items())
    assert any(not torch.equal(first[name], tensor) for name, tensor in adapters.trainable_state(other).items())


@pytest.mark.parametrize("targets", [["q_prj"], ["q_proj", "q_prj"]])
def test_a_target_that_is_not_there_is_refused_with_what_is(targets: list[str]) -> None:
    settings = tiny.config(adapter="lora", targets=targets)
    with pytest.raises(ConfigError) as caught:
        adapters.attach(tiny.model("llama"), settings)
    assert str(caught.value) == (
        "adapter.targets: got 'q_prj'; expected linear modules of tiny_fresh (q_proj ×2, k_proj ×2, v_proj ×2, o_proj ×2, "
        "gate_proj ×2, up_proj ×2, down_proj ×2, lm_head ×1); try adapter.targets=[q_proj]"
    )


def test_a_target_that_some_layers_do_not_have_is_refused() -> None:
    base = tiny.model("llama")
    base.model.layers[1].mlp.gate_proj = torch.nn.Identity()
    with pytest.raises(ConfigError) as caught:
        adapters.attach(base, tiny.config(adapter="lora", targets=["q_proj", "gate_proj"]))
    assert str(caught.value) == (
        "adapter.targets: got 'gate_proj', which 1 of 2 layers do not have (the first is 1); expected linear modules of every "
        "layer of tiny_fresh (q_proj, k_proj, v_proj, o_proj, up_proj, down_proj); try adapter.targets=[q_proj]"
    )


def test_the_output_layer_may_be_a_target() -> None:
    model = adapters.attach(tiny.model("llama"), tiny.config(adapter="lora", targets=["q_proj", "lm_head"]))
    assert len([name for name in adapters.trainable_state(model) if "lora_A" in name]) == 3


def test_an_adapter_without_targets_is_refused() -> None:
    settings = tiny.config(adapter="lora")
    settings = dataclasses.replace(settings, model=dataclasses.replace(settings.model, lora_targets=[]))
    with pytest.raises(ConfigError, match=r"^adapter.targets: got no targets; expected linear modules of tiny_fresh \(q_proj"):
        adapters.attach(tiny.model("llama"), settings)


def test_the_audit_refuses_a_stray_trainable_weight() -> None:
    settings = tiny.config(adapter="lora", targets=["q_proj"])
    model = adapters.attach(tiny.model("llama"), settings)
    model.base_model.model.lm_head.weight.requires_grad_(True)
    with pytest.raises(
        ModelError, match=r"^adapter: got 21,504 trainable parameters \(base_model\.model\.lm_head\.weight\); expected 1,024;"
    ):
        adapters.audit(model, settings)


REAL: dict[str, tuple[dict[str, Any], list[str], int]] = {
    "LLaMA-7B": (
        {
            "model_type": "llama",
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
        },
        ["q_proj", "v_proj"],
        4_194_304,
    ),
    "LLaMA-13B": (
        {
            "model_type": "llama",
            "hidden_size": 5120,
            "intermediate_size": 13824,
            "num_hidden_layers": 40,
            "num_attention_heads": 40,
        },
        ["q_proj", "v_proj"],
        6_553_600,
    ),
    "BLOOM-7b1": ({"model_type": "bloom", "hidden_size": 4096, "n_layer": 30, "n_head": 32}, ["query_key_value"], 3_932_160),
    "GPT-J-6B": (
        {"model_type": "gptj", "n_embd": 4096, "n_layer": 28, "n_head": 16, "rotary_dim": 64},
        ["q_proj", "v_proj"],
        3_670_016,
    ),
}


@pytest.mark.parametrize("name", list(REAL))
def test_the_papers_models_train_the_published_number_of_parameters(name: str) -> None:
    keys, targets, published = REAL[name]
    keys = dict(keys)
    settings = tiny.config(adapter="lora", targets=targets)
    settings = dataclasses.replace(settings, adapter=dataclasses.replace(settings.adapter, rank=8))
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(AutoConfig.for_model(keys.pop("model_type"), **keys))
        model = adapters.attach(base, settings)
    assert adapters.audit(model, settings)["trainable"] == published


FRESH = """
import sys, torch
from peft import AutoPeftModelForCausalLM
model = AutoPeftModelForCausalLM.from_pretrained(sys.argv[1]).eval()
with torch.no_grad():
    torch.save(model(input_ids=torch.arange(3, 25)[None]).logits, sys.argv[2])
"""


def test_a_saved_adapter_loads_with_plain_peft_in_a_fresh_process_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.save("llama", tmp_path / "models" / "base")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    settings = tiny.config(Path("models/base"), adapter="lora", targets=["q_proj", "v_proj"])
    model = adapters.attach(loading.load_base(settings, None, len(tiny.tokenizer())), settings)
    _step(model)
    trained = tiny.logits(model)
    folder = adapters.save(model, tiny.tokenizer(), tmp_path / "cell", settings)
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tmp_path / "models" / "base")
    assert len(AutoTokenizer.from_pretrained(folder)) == len(tiny.tokenizer())

    out = tmp_path / "logits.pt"
    subprocess.run([sys.executable, "-c", FRESH, str(folder), str(out)], cwd=tmp_path / "elsewhere", check=True, timeout=120)
    assert torch.equal(torch.load(out, weights_only=True), trained)


def test_an_adapter_on_a_hub_model_names_its_revision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = tiny.config(Path("someone/model"), adapter="lora", targets=["q_proj"])
    settings = dataclasses.replace(settings, model=dataclasses.replace(settings.model, revision="v1.1"))
    base = tiny.model("llama")
    base.name_or_path = "someone/model"
    folder = adapters.save(adapters.attach(base, settings), tiny.tokenizer(), tmp_path, settings)
    written = json.loads((folder / "adapter_config.json").read_text())
    assert (written["base_model_name_or_path"], written["revision"]) == ("someone/model", "v1.1")


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
@pytest.mark.parametrize("precision", [Precision.fp32, Precision.int8, Precision.nf4])
def test_a_reloaded_adapter_gives_the_logits_it_was_trained_to(family: str, precision: Precision, tmp_path: Path) -> None:
    model, settings = _attached(tiny.save(family, tmp_path / "base"), family, precision)
    untrained = tiny.logits(model)
    _step(model)
    trained = tiny.logits(model)
    assert not torch.allclose(trained, untrained)
    adapters.save(model, tiny.tokenizer(), tmp_path, settings)
    base = loading.load_base(settings, None, len(tiny.tokenizer()))
    assert torch.equal(tiny.logits(adapters.load(base, tmp_path, settings)), trained)
    plain = PeftModel.from_pretrained(loading.load_base(settings, None, len(tiny.tokenizer())), str(tmp_path / "adapter"))
    assert torch.equal(tiny.logits(plain), trained)


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_a_wholly_trained_model_is_saved_as_transformers_loads_it(family: str, tmp_path: Path) -> None:
    model, settings = _attached(tiny.save(family, tmp_path / "base"), family, adapter="none")
    _step(model)
    folder = adapters.save(model, tiny.tokenizer(), tmp_path, settings)
    assert not list(folder.glob("*.bin"))
    for loaded in (AutoModelForCausalLM.from_pretrained(folder), loading.load_trained(settings, tmp_path)):
        assert torch.equal(tiny.logits(loaded), tiny.logits(model))


def test_an_adapter_that_changes_nothing_is_refused(llama: Path, tmp_path: Path) -> None:
    model, settings = _attached(llama, "llama")
    adapters.save(model, tiny.tokenizer(), tmp_path, settings)
    base = loading.load_base(settings, None, len(tiny.tokenizer()))
    with pytest.raises(ModelError) as caught:
        adapters.load(base, tmp_path, settings)
    assert str(caught.value) == (
        f"{tmp_path / 'adapter'}: got an adapter that changes nothing; expected trained weights; try deleting it and running again"
    )


@pytest.mark.parametrize("harm", ["half", "cut", "gone"])
def test_an_adapter_that_is_not_whole_is_refused(llama: Path, tmp_path: Path, harm: str) -> None:
    from safetensors.torch import load_file, save_file

    model, settings = _attached(llama, "llama")
    _step(model)
    file = adapters.save(model, tiny.tokenizer(), tmp_path, settings) / "adapter_model.safetensors"
    match harm:
        case "half":
            save_file(dict(list(load_file(file).items())[::2]), file)
        case "cut":
            file.write_bytes(file.read_bytes()[:-100])
        case "gone":
            file.unlink()
    base = loading.load_base(settings, None, len(tiny.tokenizer()))
    with pytest.raises(ModelError, match=r"/adapter: got an adapter that cannot be loaded \(.+\); expected the adapter that the"):
        adapters.load(base, tmp_path, settings)


def test_a_checkpoint_of_another_adapter_is_refused() -> None:
    model = adapters.attach(tiny.model("llama"), tiny.config(adapter="lora", targets=["q_proj"]))
    other = adapters.attach(tiny.model("llama"), tiny.config(adapter="lora", targets=["v_proj"]))
    with pytest.raises(ModelError, match=r"^checkpoint: got tensors that differ from the model's \(base_model.+; try deleting"):
        adapters.load_trainable(model, adapters.trainable_state(other))
    adapters.load_trainable(model, adapters.trainable_state(model))


def test_weights_that_come_in_bfloat16_are_trained_in_float32() -> None:
    model = adapters.attach(tiny.model("llama").to(torch.bfloat16), tiny.config())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
