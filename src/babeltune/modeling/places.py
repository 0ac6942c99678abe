"""The linear modules of a model, and which of them are the feed-forward block and the attention."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from torch import nn

from babeltune.errors import ConfigError, nearest, problem


@dataclass(frozen=True, slots=True)
class Places:
    """The linear modules of a model type that bottlenecks and factors attach to, by their last names."""

    first: tuple[str, ...]
    """Into the feed-forward block."""
    last: tuple[str, ...]
    """Out of it."""
    attention: tuple[str, ...]
    """What makes queries, keys and values."""
    keys_values: tuple[str, ...]
    """Those of them that make keys and values; Bloom makes all three in one."""


_LLAMA = Places(("gate_proj", "up_proj"), ("down_proj",), ("q_proj", "k_proj", "v_proj"), ("k_proj", "v_proj"))
PLACES = {
    "bloom": Places(("dense_h_to_4h",), ("dense_4h_to_h",), ("query_key_value",), ("query_key_value",)),
    "gptj": Places(("fc_in",), ("fc_out",), ("q_proj", "k_proj", "v_proj"), ("k_proj", "v_proj")),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
}


def places(base: Any, what: str) -> Places:
    """Where this base has its feed-forward block and its attention. Raises ConfigError for a model type that is not known."""
    kind = base.config.model_type
    if kind not in PLACES:
        raise ConfigError(problem(f"adapter={what}", f"a {kind} model", f"one of {', '.join(sorted(PLACES))}", "adapter=lora"))
    return PLACES[kind]


def linears(model: nn.Module) -> dict[str, Any]:
    """The linear modules of the base by their names, whatever adapter is around them."""
    found = {}
    for name, module in model.named_modules():
        if hasattr(module, "in_features") and name and "lora_" not in name:
            found[name.removesuffix(".base_layer").removesuffix(".base")] = module
    return found


def linear_modules(model: nn.Module) -> Counter[str]:
    """The last names of a model's linear modules, with how often each occurs."""
    return Counter(name.rsplit(".", 1)[-1] for name in linears(model))


def check_targets(model: nn.Module, targets: list[str], name: str) -> None:
    """Every target must be there, and in each layer if it is in one. peft trains what it finds and says nothing of the rest."""
    there = linear_modules(model)
    missing = [target for target in targets if target not in there]
    if missing or not targets:
        got = ", ".join(map(repr, missing)) or "no targets"
        known = ", ".join(f"{module} ×{count}" for module, count in there.items())
        raise ConfigError(
            problem(
                "adapter.targets",
                got,
                f"linear modules of {name} ({known})",
                f"adapter.targets=[{nearest(missing[0], there, 1) if missing else next(iter(there), '')}]",
            )
        )
    layers = _layers(model)
    everywhere = set().union(*layers.values())
    for target in targets:
        lacking = sorted(everywhere - layers[target]) if layers[target] else []
        if lacking:
            whole = [module for module, found in layers.items() if found == everywhere]
            got = f"{target!r}, which {len(lacking)} of {len(everywhere)} layers do not have (the first is {lacking[0]})"
            expected = f"linear modules of every layer of {name} ({', '.join(whole)})"
            left = [one for one in targets if one in whole] or whole[:1]
            raise ConfigError(problem("adapter.targets", got, expected, f"adapter.targets=[{','.join(left)}]"))


def _layers(model: nn.Module) -> dict[str, set[int]]:
    """The numbers of the layers that have a linear module, by its last name; none for what is outside the layers."""
    found: dict[str, set[int]] = {}
    for name in linears(model):
        layer = re.search(r"\.(\d+)\.", name)
        found.setdefault(name.rsplit(".", 1)[-1], set()).update({int(layer[1])} if layer else ())
    return found
