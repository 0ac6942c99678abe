"""The published parameter counts, on models of the papers' size that have shapes and no weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from babeltune.config import compose
from babeltune.errors import ConfigError, ModelError
from babeltune.modeling import adapters
from tests.modeling import kinds, tiny

BLOOM = {"model_type": "bloom", "hidden_size": 4096, "n_layer": 30, "n_head": 32, "vocab_size": 250880}
GPTJ = {"model_type": "gptj", "n_embd": 4096, "n_layer": 28, "n_head": 16, "rotary_dim": 64}
LLAMA = {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
LLAMA_13B = LLAMA | {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40}
EXT = LLAMA | {"vocab_size": 79458, "tie_word_embeddings": False}

PUBLISHED = {
    "model=bloom_7b1 adapter=adalora": (BLOOM, 5_898_600),
    "model=bloom_7b1 adapter=lora adapter.rank=32": (BLOOM, 15_728_640),
    "model=bloom_7b1 adapter=prompt data.layout=padded": (BLOOM, 81_920),
    "model=bloom_7b1 adapter=p_tuning data.layout=padded": (BLOOM, 1_151_232),
    "model=bloom_7b1 adapter=prefix data.layout=padded": (BLOOM, 32_309_376),
    "model=bloom_7b1 adapter=sadapter_p": (BLOOM, 7_864_320),
    "model=bloom_7b1 adapter=sadapter_h": (BLOOM, 15_728_640),
    "model=bloom_7b1 adapter=padapter": (BLOOM, 15_728_640),
    "model=bloom_7b1 adapter=sadapter_p_256": (BLOOM, 62_914_560),
    "model=bloom_7b1 adapter=sadapter_h_256": (BLOOM, 125_829_120),
    "model=bloom_7b1 adapter=padapter_256": (BLOOM, 125_829_120),
    "model=bloomz_7b1_mt": (BLOOM, 3_932_160),
    "model=vi_gptj_6b": (GPTJ, 3_670_016),
    "model=vicuna_13b_v11": (LLAMA_13B, 6_553_600),
    "model=llama_ext_7b adapter=embeddings": (EXT, 650_919_936),
    "model=bloom_7b1 adapter=rslora": (BLOOM, 3_932_160),
}
"""Alpaca-CoT, Table 4 (spec 6.2, finding 6); FLACUNA 6.55M (finding 3); the Vietnamese paper's GPT-J and Bloomz (finding 2)."""


def hollow(keys: dict[str, Any]) -> Any:
    keys = dict(keys)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(keys.pop("model_type"), **keys))


@pytest.mark.parametrize("overrides", list(PUBLISHED))
def test_a_papers_adapter_has_the_published_number_of_parameters(overrides: str) -> None:
    keys, published = PUBLISHED[overrides]
    config = compose([*overrides.split(), "scale=paper"])
    base = hollow(keys)
    with torch.device("meta"):
        model = adapters.attach(base, config)
    assert adapters.audit(model, config)["trainable"] == published
    assert sum(part.numel() for part in model.parameters() if part.requires_grad) == published


def test_each_embedding_matrix_of_the_extended_llama_has_the_published_size() -> None:
    config = compose(["model=llama_ext_7b", "adapter=embeddings", "scale=paper"])
    with torch.device("meta"):
        model = adapters.attach(hollow(EXT), config)
    trained = {name: part.numel() for name, part in model.named_parameters() if part.requires_grad}
    assert trained == {"model.embed_tokens.weight": 325_459_968, "lm_head.weight": 325_459_968}


def test_tied_embeddings_are_trained_and_counted_once() -> None:
    model, settings = kinds.attached("embeddings", "bloom")
    assert adapters.audit(model, settings)["trainable"] == tiny.VOCABULARY * 64
    assert list(adapters.trainable_state(model)) == ["transformer.word_embeddings.weight"]
    kinds.train(model, 1)
    assert model.lm_head.weight is model.transformer.word_embeddings.weight


STRAYS = {
    "prompt": "base_model.lm_head.weight",
    "sadapter_h": "lm_head.weight",
    "ia3": "base_model.model.lm_head.weight",
    "adalora": "base_model.model.lm_head.weight",
}


@pytest.mark.parametrize("kind", list(STRAYS))
def test_the_audit_refuses_a_stray_weight_of_the_base(kind: str) -> None:
    model, settings = kinds.attached(kind, "llama")
    model.get_output_embeddings().weight.requires_grad_(True)
    with pytest.raises(ModelError, match=rf"^adapter: got [\d,]+ trainable parameters \({STRAYS[kind]}\); expected [\d,]+;"):
        adapters.audit(model, settings)


@pytest.mark.parametrize("kind", list(kinds.KINDS))
def test_the_audit_refuses_an_adapter_of_another_size_than_was_asked_for(kind: str) -> None:
    model, settings = kinds.attached(kind, "llama")
    next(part for part in model.parameters() if part.requires_grad).requires_grad_(False)
    with pytest.raises(ModelError, match=r"^adapter: got [\d,]+ trainable parameters \(adapter only\); expected [\d,]+;"):
        adapters.audit(model, settings)


@pytest.mark.parametrize("kind", ["sadapter_p", "ia3"])
def test_a_family_whose_blocks_are_not_known_is_refused(kind: str) -> None:
    base = hollow({"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2})
    settings = kinds.config(kind, "llama")
    with pytest.raises(ConfigError) as caught:
        adapters.attach(base, settings)
    assert str(caught.value) == (
        f"adapter={kind}: got a gpt2 model; expected one of bloom, gptj, llama, mistral, qwen2; try adapter=lora"
    )
