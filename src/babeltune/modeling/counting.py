"""How many parameters each adapter must train, by formulas that do not look at what was attached.

On BLOOM-7b1 they give the counts of Table 4 of the Alpaca-CoT study to the last parameter.
"""

from __future__ import annotations

from typing import Any

from babeltune.modeling.bottleneck import expected_bottlenecks
from babeltune.modeling.places import linears, places
from babeltune.options import (
    AdaLoraAdapter,
    BottleneckAdapter,
    DoraAdapter,
    EmbeddingsAdapter,
    Ia3Adapter,
    LowRankAdapter,
    NoAdapter,
    PrefixAdapter,
    PromptAdapter,
    PTuningAdapter,
    RunConfig,
)


def expected_trainable(model: Any, config: RunConfig) -> int:
    """Parameters that must be trainable. H is the model's width, K the trained tokens, h the width of the small network."""
    match config.adapter:
        case LowRankAdapter(rank=rank, targets=targets):
            chosen = _named(model, targets or config.model.lora_targets)
            lengths = (
                sum(int(part.out_features) for part in chosen) if isinstance(config.adapter, DoraAdapter) else 0
            )  # Liu 2024, eq. 5
            return sum(rank * int(part.in_features + part.out_features) for part in chosen) + lengths  # Hu et al. 2021, 4.2
        case AdaLoraAdapter(initial_rank=rank, targets=targets):  # P, Q and the diagonal between them: Zhang et al. 2023, eq. 3
            chosen = _named(model, targets or config.model.lora_targets)
            return sum(rank * int(part.in_features + part.out_features) + rank for part in chosen)
        case PromptAdapter(tokens=tokens):  # K·H: Lester et al. 2021
            return tokens * _width(model)
        case PTuningAdapter(tokens=tokens, hidden=hidden):  # K·H, and three layers H→h→h→H: peft's PromptEncoder
            width = _width(model)
            return tokens * width + (width + 1) * hidden + (hidden + 1) * hidden + (hidden + 1) * width
        case PrefixAdapter(tokens=tokens, hidden=hidden):  # K·W, and two layers W→h→2·layers·W: Li and Liang 2021, 4.3
            width = _width_of_keys(model)
            layers = int(_settings(model).num_hidden_layers)
            return tokens * width + (width + 1) * hidden + (hidden + 1) * 2 * layers * width
        case BottleneckAdapter():
            return expected_bottlenecks(_base(model), config.adapter)
        case Ia3Adapter():  # a factor for each key, value and inner feature: Liu et al. 2022, 3.3
            where = places(_base(model), "ia3")
            outs = sum(int(part.out_features) for part in _named(model, where.keys_values))
            return outs + sum(int(part.in_features) for part in _named(model, where.last))
        case EmbeddingsAdapter():
            return sum(int(matrix.numel()) for matrix in embedding_matrices(_base(model)))
        case NoAdapter():
            return sum(parameter.numel() for parameter in model.parameters()) if config.data.sources else 0
        case other:
            raise AssertionError(other)


def embedding_matrices(lm: Any) -> list[Any]:
    """The matrices that turn tokens into features and back: one where the model ties them. A bias beside them is not among them."""
    first, last = lm.get_input_embeddings().weight, lm.get_output_embeddings().weight
    return [first] if first is last else [first, last]


def _named(model: Any, names: Any) -> list[Any]:
    return [part for name, part in linears(model).items() if name.rsplit(".", 1)[-1] in set(names)]


def _width(model: Any) -> int:
    return int(_settings(model).hidden_size)


def _width_of_keys(model: Any) -> int:
    """Features of all keys of a token; fewer than the model's width where several heads share their keys."""
    settings = _settings(model)
    heads = int(settings.num_attention_heads)
    return _width(model) // heads * int(getattr(settings, "num_key_value_heads", None) or heads)


def _settings(model: Any) -> Any:
    return _base(model).config


def _base(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model
