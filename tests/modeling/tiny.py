"""Tiny random models of four families, a tokenizer, and configs, for the tests of modeling and evaluation."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import torch

from babeltune.config import compose
from babeltune.data import preparing
from babeltune.data.preparing import Writing
from babeltune.modeling.loading import fresh_model
from babeltune.modeling.vocabulary import train_tokenizer
from babeltune.options import LoraAdapter, NoAdapter, Precision, RunConfig

torch.set_num_threads(1)  # on a busy machine, two threads make small steps ten times slower

VOCABULARY = 320

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "qwen2": LLAMA | {"model_type": "qwen2"},
    "bloom": {"model_type": "bloom", "hidden_size": 64, "n_layer": 2, "n_head": 4},
    "gptj": {"model_type": "gptj", "n_embd": 64, "n_layer": 2, "n_head": 2, "rotary_dim": 8, "n_positions": 256},
}
TARGETS = {
    "llama": ["q_proj", "v_proj"],
    "qwen2": ["q_proj", "v_proj"],
    "bloom": ["query_key_value"],
    "gptj": ["q_proj", "v_proj"],
}
TEXTS = [
    "请把这句话翻译成英文。你好，世界！法国的首都是巴黎。",
    "Thủ đô của Việt Nam là Hà Nội. Xin chào các bạn!",
    "The capital of France is Paris. Translate this sentence.",
]


def model(family: str, vocabulary: int = VOCABULARY, seed: int = 0) -> Any:
    """A random model whose weights are large enough for its attention to matter."""
    made = fresh_model(FAMILIES[family], vocabulary, seed)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.ndim == 2:
                parameter.mul_(5)
            elif name == "lm_head.bias":
                parameter.uniform_(-1, 1, generator=random)
    return made.eval()


@functools.cache
def tokenizer() -> Any:
    return train_tokenizer(TEXTS * 4, VOCABULARY)


@functools.cache
def _base_config() -> RunConfig:
    return compose(["data=toy_zh", "model=tiny_fresh", "evaluation=toy_zh", "logger=none"])


def config(
    path: Path | None = None,
    *,
    adapter: str = "none",
    targets: list[str] | None = None,
    precision: Precision = Precision.fp32,
    template: str = "alpaca",
    **decoding: Any,
) -> RunConfig:
    base = _base_config()
    kind = LoraAdapter(rank=4, dropout=0.0, targets=targets or []) if adapter == "lora" else NoAdapter()
    where = {"path": str(path), "fresh": None, "tokenizer": None} if path else {}
    return dataclasses.replace(
        base,
        adapter=kind,
        model=dataclasses.replace(base.model, **where),
        precision=dataclasses.replace(base.precision, kind=precision),
        template=dataclasses.replace(base.template, name=template),
        decoding=dataclasses.replace(base.decoding, **decoding),
    )


def save(family: str, folder: Path) -> Path:
    """A folder as a user has it: weights in safetensors and the tokenizer."""
    model(family).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def writing(settings: RunConfig, own: Any = None) -> Writing:
    return preparing.writing(settings, own or tokenizer())


def logits(lm: Any) -> torch.Tensor:
    lm.eval()
    with torch.no_grad():
        return lm(input_ids=torch.arange(3, 25)[None]).logits
