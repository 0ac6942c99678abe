"""What is trained: attached to a base, audited, saved, loaded, merged."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from babeltune.errors import BabelTuneError, ModelError, problem
from babeltune.modeling.bottleneck import bottlenecks, insert
from babeltune.modeling.counting import embedding_matrices, expected_trainable
from babeltune.modeling.pieces import like
from babeltune.modeling.places import check_targets, places
from babeltune.modeling.virtual import num_virtual
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
    RsLoraAdapter,
    RunConfig,
)
from babeltune.results import publish_folder, read_json, write_json

log = logging.getLogger(__name__)

MARKS = ("lora_", "ia3_", "prompt_encoder.")
"""What peft calls the parameters it adds."""
OWN = (BottleneckAdapter, EmbeddingsAdapter)
"""Adapters that peft does not have; they are kept as `adapter.safetensors` and `adapter.json`."""


def attach(base: Any, config: RunConfig) -> Any:
    """The model to train: the base with its adapter, exactly the right parameters trainable, all of those in float32.

    Raises ConfigError when a target names no module, ModelError when the audit finds another set than was asked for.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = _built(base, config)
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()
    audit(model, config)
    return model


def _built(base: Any, config: RunConfig) -> Any:
    match config.adapter:
        case NoAdapter():
            return base.requires_grad_(bool(config.data.sources))
        case BottleneckAdapter() as adapter:
            return insert(base, adapter)
        case EmbeddingsAdapter():
            base.requires_grad_(False)
            for matrix in embedding_matrices(base):
                matrix.requires_grad_(True)
            return base
        case _:
            return _with_peft(base, config)


def _with_peft(base: Any, config: RunConfig) -> Any:
    from peft import get_peft_model, prepare_model_for_kbit_training

    settings = _peft_settings(base, config)
    if config.precision.kind.quantises:
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    settings.revision = None if Path(base.name_or_path).is_dir() else config.model.revision
    model = get_peft_model(base, settings)
    for name, parameter in model.named_parameters():
        if "ranknum" in name:  # a constant of AdaLoRA, which peft makes trainable when it casts a bfloat16 adapter to float32
            parameter.requires_grad_(False)
    return model


def _peft_settings(base: Any, config: RunConfig) -> Any:
    """The adapter in peft's words."""
    import peft

    kind: dict[str, Any] = {"task_type": "CAUSAL_LM"}
    match config.adapter:
        case LowRankAdapter() as adapter:
            return peft.LoraConfig(
                r=adapter.rank,
                lora_alpha=adapter.alpha,
                lora_dropout=adapter.dropout,
                target_modules=_targets(base, adapter.targets, config),
                use_dora=isinstance(adapter, DoraAdapter),
                use_rslora=isinstance(adapter, RsLoraAdapter),
                **kind,
            )
        case AdaLoraAdapter() as adapter:
            return peft.AdaLoraConfig(
                init_r=adapter.initial_rank,
                target_r=adapter.target_rank,
                lora_alpha=adapter.alpha,
                lora_dropout=adapter.dropout,
                tinit=adapter.first_steps,
                tfinal=adapter.last_steps,
                deltaT=adapter.interval,
                beta1=adapter.beta1,
                beta2=adapter.beta2,
                orth_reg_weight=adapter.orthogonality,
                total_step=adapter.first_steps + adapter.last_steps + 1,  # until `ranks.plan_ranks` knows better
                target_modules=_targets(base, adapter.targets, config),
                **kind,
            )
        case PromptAdapter() as adapter:
            return peft.PromptTuningConfig(num_virtual_tokens=adapter.tokens, **kind)
        case PTuningAdapter() as adapter:
            return peft.PromptEncoderConfig(num_virtual_tokens=adapter.tokens, encoder_hidden_size=adapter.hidden, **kind)
        case PrefixAdapter() as adapter:
            return peft.PrefixTuningConfig(
                num_virtual_tokens=adapter.tokens, prefix_projection=True, encoder_hidden_size=adapter.hidden, **kind
            )
        case Ia3Adapter():
            where = places(base, "ia3")
            return peft.IA3Config(target_modules=[*where.keys_values, *where.last], feedforward_modules=list(where.last), **kind)
        case other:
            raise AssertionError(other)


def _targets(base: Any, targets: list[str], config: RunConfig) -> list[str]:
    targets = targets or config.model.lora_targets
    check_targets(base, targets, config.model.name)
    return sorted(targets)


def audit(model: nn.Module, config: RunConfig) -> dict[str, int]:
    """Count what is trainable and refuse to train anything else. Returns trainable and total counts."""
    trainable = {name: parameter.numel() for name, parameter in model.named_parameters() if parameter.requires_grad}
    expected = expected_trainable(model, config)
    strays = [] if isinstance(config.adapter, NoAdapter) else sorted(trainable.keys() - _own_names(model, config))
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


def _own_names(model: Any, config: RunConfig) -> set[str]:
    """The names of the parameters that are the adapter's."""
    match config.adapter:
        case BottleneckAdapter():
            own = {id(part) for module in bottlenecks(model) for part in (module.down, module.up)}
        case EmbeddingsAdapter():
            own = {id(matrix) for matrix in embedding_matrices(model)}
        case _:
            return {name for name, _ in model.named_parameters() if any(mark in name for mark in MARKS)}
    return {name for name, part in model.named_parameters() if id(part) in own}


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
            parameter.copy_(like(state[name], parameter))


def save(model: Any, tokenizer: Any, folder: Path, config: RunConfig) -> Path:
    """Write what was trained, in safetensors only: `model/` that plain transformers loads, or `adapter/`.

    An adapter is what plain peft loads, or, of the kinds that peft does not have, `adapter.safetensors` and `adapter.json`.
    """
    from safetensors.torch import save_file

    target = folder / ("model" if isinstance(config.adapter, NoAdapter) else "adapter")

    def write(place: str) -> None:
        if isinstance(config.adapter, OWN):
            Path(place).mkdir(parents=True)
            save_file(trainable_state(model), Path(place) / "adapter.safetensors")
            write_json(Path(place) / "adapter.json", _described(model, config))
        elif isinstance(config.adapter, NoAdapter):
            model.save_pretrained(place)
        else:  # peft asks the hub whether the base's vocabulary has grown unless it is told; here it never does
            model.save_pretrained(place, save_embedding_layers=False)
        tokenizer.save_pretrained(place)

    publish_folder(write, target)
    return target


def _described(model: Any, config: RunConfig) -> dict[str, Any]:
    return dataclasses.asdict(config.adapter) | {
        "base_model_name_or_path": model.name_or_path,
        "revision": config.model.revision,
        "model_type": model.config.model_type,
    }


def load(base: Any, folder: Path, config: RunConfig) -> Any:
    """A base with the adapter that a cell trained, for generation. Raises ModelError unless all of it is there and acts."""
    if isinstance(config.adapter, NoAdapter):
        return base
    place = folder / "adapter"
    before = [matrix.clone() for matrix in embedding_matrices(base)] if isinstance(config.adapter, EmbeddingsAdapter) else []
    try:
        model = _loaded_own(base, place, config) if isinstance(config.adapter, OWN) else _loaded_by_peft(base, place)
    except (OSError, ValueError, RuntimeError, KeyError, UserWarning, SafetensorError, BabelTuneError) as error:
        got = f"an adapter that cannot be loaded ({' '.join(str(error).split())[:200]})"
        raise ModelError(problem(str(place), got, "the adapter that the cell saved", "deleting it and running again")) from error
    if not _acts(model, config, before):
        got = "an adapter that changes nothing"
        raise ModelError(problem(str(place), got, "trained weights", "deleting it and running again"))
    return model


def _loaded_by_peft(base: Any, place: Path) -> Any:
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        # It looks for LoRA's ranks, one a module; those of AdaLoRA say which entries are left, and are read elsewhere.
        warnings.filterwarnings("ignore", message="The following rank_pattern keys did not match")
        return PeftModel.from_pretrained(base, str(place))


def load_foreign(base: Any, folder: Path, vocabulary: int) -> Any:
    """A base with an adapter in peft's format that another program trained, apart as peft has it, for generation.

    Raises ModelError when it does not fit: it cannot be loaded, some of its weights have no place, or the logits after it are
    those of the base.
    """
    try:
        model = _loaded_by_peft(base, folder.expanduser())
    except Exception as error:  # peft and torch refuse in many ways
        got = f"{folder}, which does not fit {base.name_or_path} ({' '.join(str(error).split())[:200]})"
        raise ModelError(problem("model.adapter", got, "an adapter of this base", "model.path=FOLDER of its own base")) from error
    if strays := _strays(model, folder.expanduser()):
        got = f"{folder} with {len(strays)} weights that have no place in {base.name_or_path} ({', '.join(strays[:2])})"
        raise ModelError(problem("model.adapter", got, "an adapter of this base", "model.path=FOLDER of its own base"))
    if not _changes(model, vocabulary):
        got = f"{folder}, which changes nothing in {base.name_or_path}"
        raise ModelError(problem("model.adapter", got, "trained weights", "another adapter, or model.adapter=null"))
    return model


def _strays(model: Any, folder: Path) -> list[str]:
    """Weights in an adapter's file that the loaded model has no place for; peft leaves them out without a word."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        there = set(file.keys())
    return sorted(there - get_peft_model_state_dict(model, save_embedding_layers=False).keys())


@torch.no_grad()
def _changes(model: Any, vocabulary: int) -> bool:
    """Whether any logit of a text of random tokens is another one with the adapter than without it."""
    random = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(vocabulary, (1, 32), generator=random).to(model.device)
    after = model(input_ids=ids_BT, use_cache=False).logits[:, -1]
    with model.disable_adapter():
        before = model(input_ids=ids_BT, use_cache=False).logits[:, -1]
    return not torch.equal(before, after)


def _loaded_own(base: Any, place: Path, config: RunConfig) -> Any:
    from safetensors.torch import load_file

    kind = read_json(place / "adapter.json")["kind"]
    if kind != config.adapter.kind:
        raise ValueError(f"it is of the kind {kind}")
    state = load_file(place / "adapter.safetensors")
    model = attach(base, config)
    load_trainable(model, state)
    return model.requires_grad_(False)


def _acts(model: Any, config: RunConfig, before: list[torch.Tensor]) -> bool:
    """Whether the loaded adapter makes any difference."""
    parts = dict(model.named_parameters())

    def any_of(mark: str, neutral: float = 0.0) -> bool:
        return any(bool((part != neutral).any()) for name, part in parts.items() if mark in name)

    match config.adapter:
        case LowRankAdapter():
            return any_of("lora_B")
        case AdaLoraAdapter():
            return any_of("lora_E")
        case Ia3Adapter():
            return any_of("ia3_l", neutral=1.0)
        case BottleneckAdapter():
            return any(bool(module.up.any()) for module in bottlenecks(model))
        case EmbeddingsAdapter():
            return any(not torch.equal(one, two) for one, two in zip(before, embedding_matrices(model), strict=True))
        case _:
            return num_virtual(model) > 0


def merge(model: Any) -> Any:
    """The base with the adapter's change in its own weights, in float32: what plain transformers saves and serves.

    A change computed in bfloat16 would be rounded twice; cast the result afterwards. Raises ModelError for an adapter that is not
    a change of weights, and for quantised weights, which would be rounded anew.
    """
    lm = model.get_base_model() if hasattr(model, "get_base_model") else model
    if getattr(lm, "is_quantized", False):
        got, hint = "quantised weights", "loading the base with precision=fp32 or bf16"
        raise ModelError(problem("merge", got, "weights that a change can be added to exactly", hint))
    if num_virtual(model) or any(True for _ in bottlenecks(model)):
        got = "trained tokens in front of the text" if num_virtual(model) else "bottlenecks between the layers"
        hint = "keeping base and adapter apart, or adapter=lora"
        raise ModelError(problem("merge", got, "an adapter that is a change of the base's weights", hint))
    lm.float()
    return model.merge_and_unload(safe_merge=True) if hasattr(model, "merge_and_unload") else model
