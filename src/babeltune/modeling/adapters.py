"""What is trained: attached to a base, audited, saved, loaded."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from babeltune.errors import ConfigError, ModelError, nearest, problem
from babeltune.options import LoraAdapter, NoAdapter, Precision, RunConfig
from babeltune.results import publish_folder

log = logging.getLogger(__name__)


def attach(base: Any, config: RunConfig) -> Any:
    """The model to train: the base with its adapter, exactly the right parameters trainable, all of those in float32.

    Raises ConfigError when a target names no module, ModelError when the audit finds another set than was asked for.
    """
    match config.adapter:
        case LoraAdapter():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed)
                model = _lora(base, config.adapter, config)
        case NoAdapter():
            model = base
            for parameter in model.parameters():
                parameter.requires_grad_(bool(config.data.sources))
        case other:
            raise AssertionError(other)
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()
    audit(model, config)
    return model


def _lora(base: Any, adapter: LoraAdapter, config: RunConfig) -> Any:
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    targets = adapter.targets or config.model.lora_targets
    check_targets(base, targets, config.model.name)
    if config.precision.kind in (Precision.int8, Precision.nf4):
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    return get_peft_model(
        base,
        LoraConfig(
            r=adapter.rank,
            lora_alpha=adapter.alpha,
            lora_dropout=adapter.dropout,
            target_modules=sorted(targets),
            task_type="CAUSAL_LM",
            revision=None if Path(base.name_or_path).is_dir() else config.model.revision,
        ),
    )


def linear_modules(model: nn.Module) -> Counter[str]:
    """The last names of a model's linear modules, with how often each occurs."""
    names: Counter[str] = Counter()
    for name, module in model.named_modules():
        if hasattr(module, "in_features") and name:
            names[name.rsplit(".", 1)[-1]] += 1
    return names


def check_targets(model: nn.Module, targets: list[str], name: str) -> None:
    """Every target must be there. peft itself trains those it finds and says nothing of the rest."""
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


def expected_trainable(model: nn.Module, config: RunConfig) -> int:
    """Parameters that must be trainable: for LoRA, rank × (inputs + outputs) of every targeted module (Hu et al. 2021, 4.2)."""
    match config.adapter:
        case LoraAdapter(rank=rank, targets=targets):
            wanted = set(targets or config.model.lora_targets)
            modules = {
                name.removesuffix(".base_layer"): module
                for name, module in model.named_modules()
                if hasattr(module, "in_features") and "lora_" not in name
            }
            chosen = [module for name, module in modules.items() if name.rsplit(".", 1)[-1] in wanted]
            return sum(rank * (module.in_features + module.out_features) for module in chosen)
        case _:
            return sum(parameter.numel() for parameter in model.parameters()) if config.data.sources else 0


def audit(model: nn.Module, config: RunConfig) -> dict[str, int]:
    """Count what is trainable and refuse to train anything else. Returns trainable and total counts."""
    trainable = {name: parameter.numel() for name, parameter in model.named_parameters() if parameter.requires_grad}
    expected = expected_trainable(model, config)
    strays = [name for name in trainable if isinstance(config.adapter, LoraAdapter) and "lora_" not in name]
    if sum(trainable.values()) != expected or strays:
        raise ModelError(
            problem(
                "adapter",
                f"{sum(trainable.values()):,} trainable parameters ({', '.join(strays[:3]) or 'adapter only'})",
                f"{expected:,}",
                "reporting it: adapter and model do not fit",
            )
        )
    total = sum(parameter.numel() for parameter in model.parameters())
    return {"trainable": expected, "total": total}


def trainable_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that training changes, by name."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def load_trainable(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Put trained tensors back. Raises ModelError unless names and shapes are exactly the trainable ones."""
    own = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if own.keys() != state.keys() or any(own[name].shape != state[name].shape for name in own):
        differing = sorted(own.keys() ^ state.keys())[:3]
        raise ModelError(
            problem(
                "checkpoint",
                f"tensors that differ from the model's ({', '.join(differing) or 'other shapes'})",
                "the same set",
                "deleting the checkpoint",
            )
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(state[name])


def save(model: Any, tokenizer: Any, folder: Path, config: RunConfig) -> Path:
    """Write what was trained: `adapter/` that plain peft loads, or `model/` that plain transformers loads. Safetensors only."""
    target = folder / ("model" if isinstance(config.adapter, NoAdapter) else "adapter")

    # peft asks the hub whether the base's vocabulary has grown unless it is told; here it never does.
    settings = {"save_embedding_layers": False} if isinstance(config.adapter, LoraAdapter) else {}

    def write(place: str) -> None:
        model.save_pretrained(place, **settings)
        tokenizer.save_pretrained(place)

    publish_folder(write, target)
    return target


def load(base: Any, folder: Path, config: RunConfig) -> Any:
    """A base with the adapter that a cell trained, for generation. Raises ModelError unless all of it is there and acts."""
    from peft import PeftModel

    if isinstance(config.adapter, NoAdapter):
        return base
    place = folder / "adapter"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            model = PeftModel.from_pretrained(base, str(place))
    except (OSError, ValueError, RuntimeError, UserWarning, SafetensorError) as error:
        got = f"an adapter that cannot be loaded ({' '.join(str(error).split())[:200]})"
        raise ModelError(problem(str(place), got, "the adapter that the cell saved", "deleting it and running again")) from error
    if not any(parameter.count_nonzero() for name, parameter in model.named_parameters() if "lora_B" in name):
        got = "an adapter that changes nothing"
        raise ModelError(problem(str(place), got, "trained weights", "deleting it and running again"))
    return model
