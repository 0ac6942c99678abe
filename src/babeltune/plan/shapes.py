"""The model that a cell would train, without its weights: its architecture, its tokenizer, and how many parameters it has."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from babeltune import cells, results, runner
from babeltune.cells import cache_folder, cell_of, parent_config
from babeltune.errors import ModelError, problem
from babeltune.modeling import adapters, loading
from babeltune.modeling.vocabulary import train_tokenizer
from babeltune.options import ExtendVocabularyStage, Precision, PrecisionConfig, RunConfig
from babeltune.plan.profiles import Weighing

TOKENIZERS = "plans/tokenizers"
"""Below the cache: tokenizers that a cell would learn from its mix."""


def architecture(config: RunConfig, vocabulary: int) -> Any:
    """The transformers config of a cell's base, from its folder, the hub, or the words that describe it. No weight is read.

    Raises ModelError where it is not known before another cell has run.
    """
    model = config.model
    if model.fresh is not None:
        return loading.fresh_architecture(model.fresh, vocabulary)
    parent = parent_config(config)
    if parent is not None:
        merged = cell_of(parent).folder / "model"
        if (merged / "config.json").is_file():
            return AutoConfig.from_pretrained(str(merged))
        _refuse_unknown(parent)
        return architecture(parent, len(load_tokenizer(parent)))
    file = cells.config_file(model)
    try:
        return AutoConfig.from_pretrained(str(file.parent) if file else model.path, revision=None if file else model.revision)
    except Exception as error:  # a folder and the hub fail in many ways
        got = f"no config of {model.path or model.from_cell} ({' '.join(str(error).split())[:120]})"
        raise ModelError(problem("model.path", got, "a folder, or a hub id and a connection", "model.path=FOLDER")) from error


def load_tokenizer(config: RunConfig) -> Any:
    """The tokenizer that the cell would have; one that it would learn is learned here and kept in the cache."""
    cell = cell_of(config)
    if isinstance(config.stage, ExtendVocabularyStage):
        return loading.load_tokenizer(dataclasses.replace(config.model, tokenizer=None), cell.parent)
    parent = parent_config(config)
    if parent is not None and config.model.tokenizer is None and not _has_tokenizer(cell.parent):
        _refuse_unknown(parent)
        return load_tokenizer(parent)
    if config.model.tokenizer != "train":
        return loading.load_tokenizer(config.model, cell.parent)
    folder = cell.folder / "tokenizer"
    if not folder.exists():
        folder = cache_folder(config) / TOKENIZERS / cell.identity
        if not folder.exists():
            results.publish_folder(train_tokenizer(runner.texts_of(config), config.model.vocabulary).save_pretrained, folder)
    return loading.load_tokenizer(dataclasses.replace(config.model, tokenizer=str(folder)), None)


def _has_tokenizer(parent: Path | None) -> bool:
    return parent is not None and any((parent / name).is_dir() for name in ("model", "adapter"))


def _refuse_unknown(parent: RunConfig) -> None:
    if isinstance(parent.stage, ExtendVocabularyStage):
        got, expected = "a base whose vocabulary another cell has yet to extend", "that cell first"
        raise ModelError(problem("plan", got, expected, f"running {cell_of(parent).folder.name}, then this plan again"))


def parameters(config: RunConfig, shape: Any) -> dict[str, int]:
    """Trainable and total parameters, as `adapters.audit` counts them after attaching. Nothing is allocated."""
    plain = dataclasses.replace(config, precision=PrecisionConfig(kind=Precision.fp32))  # packed weights count otherwise
    with torch.device("meta"):
        return adapters.audit(adapters.attach(_meta(shape), plain), plain)


def weighing(shape: Any) -> Weighing:
    """How much tokens and targets compute in a model of this shape."""
    base = _meta(shape)
    head = base.get_output_embeddings().weight
    outside = {id(matrix): matrix.numel() for matrix in (head, base.get_input_embeddings().weight)}
    return Weighing(sum(part.numel() for part in base.parameters()) - sum(outside.values()), head.numel())


def linear_parameters(shape: Any) -> int:
    """Those that a quantised base packs: of every linear module but the output layer."""
    base = _meta(shape)
    head = base.get_output_embeddings()
    linears = [part for part in base.modules() if isinstance(part, torch.nn.Linear) and part is not head]
    return sum(part.weight.numel() for part in linears)


def with_layers(shape: Any, layers: int) -> Any:
    """The same architecture with fewer layers."""
    smaller = copy.deepcopy(shape)
    for name in ("layer_types", "attention_layers"):
        if isinstance(getattr(smaller, name, None), list):
            setattr(smaller, name, getattr(smaller, name)[:layers])
    smaller.num_hidden_layers = layers
    return smaller


def write_random(shape: Any, tokenizer: Any, folder: Path) -> None:
    """A model of random weights, as a folder that a cell can be started from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(shape, dtype=getattr(shape, "dtype", None) or torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _meta(shape: Any) -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(shape, dtype=torch.float32)
