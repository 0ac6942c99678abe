"""Bottlenecks stand where the study put them, and compute what it computed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from babeltune.errors import ModelError
from babeltune.modeling import adapters
from babeltune.modeling.bottleneck import Bottleneck, Side
from babeltune.options import ParallelAdapter, PfeifferAdapter
from babeltune.results import read_json
from tests.modeling import kinds, tiny


@pytest.mark.parametrize("side", list(Side))
def test_a_bottleneck_adds_what_it_makes_of_what_it_sees(side: Side) -> None:
    base = torch.nn.Linear(3, 5)
    both = Bottleneck(base, side, PfeifferAdapter(size=2))
    x = torch.randn(4, 3)

    def narrow(seen: torch.Tensor) -> torch.Tensor:
        return torch.tanh(seen @ both.down.T) @ both.up.T

    expected = {Side.before: base(x + narrow(x)) if side is Side.before else None}
    if side is Side.after:
        expected[side] = base(x) + narrow(base(x))
    if side is Side.beside:
        expected[side] = base(x) + narrow(x)
    torch.testing.assert_close(both(x), expected[side])


PLACES = {
    ("sadapter_p", "bloom"): {"mlp.dense_4h_to_h": "after"},
    ("sadapter_h", "bloom"): {"mlp.dense_h_to_4h": "before", "mlp.dense_4h_to_h": "after"},
    ("padapter", "bloom"): {"self_attention.query_key_value": "beside"},
    ("sadapter_p", "gptj"): {"mlp.fc_out": "after"},
    ("sadapter_h", "gptj"): {"mlp.fc_in": "before", "mlp.fc_out": "after"},
    ("padapter", "gptj"): {"attn.q_proj": "beside", "attn.k_proj": "beside", "attn.v_proj": "beside"},
    ("sadapter_p", "llama"): {"mlp.down_proj": "after"},
    ("sadapter_h", "llama"): {"mlp.gate_proj": "before", "mlp.up_proj": "before", "mlp.down_proj": "after"},
    ("padapter", "llama"): {"self_attn.q_proj": "beside", "self_attn.k_proj": "beside", "self_attn.v_proj": "beside"},
}


@pytest.mark.parametrize(("kind", "family"), list(PLACES))
def test_every_layer_has_its_bottlenecks_in_their_places(kind: str, family: str) -> None:
    model, _ = kinds.attached(kind, family)
    found = {name: module.side.value for name, module in model.named_modules() if isinstance(module, Bottleneck)}
    expected = {
        f"{'model.layers' if family == 'llama' else 'transformer.h'}.{layer}.{name}": side
        for layer in range(2)
        for name, side in PLACES[kind, family].items()
    }
    assert found == expected


@pytest.mark.parametrize("family", kinds.FAMILIES)
@pytest.mark.parametrize("kind", ["sadapter_p", "sadapter_h", "padapter"])
def test_a_zero_start_is_the_base_and_the_published_start_is_not(kind: str, family: str) -> None:
    base = tiny.logits(tiny.model(family))
    assert torch.equal(tiny.logits(kinds.attached(kind, family, zero_start=True)[0]), base)
    assert not torch.allclose(tiny.logits(kinds.attached(kind, family)[0]), base)


def test_both_matrices_start_with_the_published_deviation() -> None:
    one = Bottleneck(torch.nn.Linear(400, 300), Side.beside, ParallelAdapter(size=200))
    assert float(one.down.detach().std()) == pytest.approx(0.02, rel=0.02)  # of 60,000 numbers and more
    assert float(one.up.detach().std()) == pytest.approx(0.02, rel=0.02)


def test_the_sum_is_made_in_float32_and_handed_on_as_it_came() -> None:
    base = torch.nn.Linear(3, 5).to(torch.bfloat16)
    both = Bottleneck(base, Side.after, PfeifferAdapter(size=2))
    assert both.down.dtype == both.up.dtype == torch.float32
    assert both(torch.randn(4, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_the_folder_says_what_is_in_it(tmp_path: Path) -> None:
    model, settings = kinds.attached("sadapter_h", "bloom")
    folder = adapters.save(model, tiny.tokenizer(), tmp_path, settings)
    told = read_json(folder / "adapter.json")
    assert (told["kind"], told["size"], told["model_type"]) == ("sadapter_h", 4, "bloom")
    assert sum(part.numel() for part in load_file(folder / "adapter.safetensors").values()) == 2 * 2 * 2 * 4 * 64


@pytest.mark.parametrize("harm", ["half", "cut", "gone", "other"])
def test_bottlenecks_that_are_not_whole_are_refused(harm: str, tmp_path: Path) -> None:
    model, settings = kinds.attached("sadapter_h", "llama")
    file = adapters.save(model, tiny.tokenizer(), tmp_path, settings) / "adapter.safetensors"
    match harm:
        case "half":
            save_file(dict(list(load_file(file).items())[::2]), file)
        case "cut":
            file.write_bytes(file.read_bytes()[:-100])
        case "gone":
            file.unlink()
        case "other":
            settings = kinds.config("sadapter_p", "llama")
    with pytest.raises(ModelError, match=r"/adapter: got an adapter that cannot be loaded \(.+\); expected the adapter that the"):
        kinds.reloaded("llama", tmp_path, settings)
