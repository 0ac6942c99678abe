"""The base model and the tokenizer that this process has loaded, handed to cell after cell.

A cell never gets the kept base itself, but a copy: modules, settings and buffers of its own around the same weights. So no hook, no
attached module, no flag and no setting of one cell reaches the next; and whether its weights are still what was loaded is looked at
before they are handed out again. One base is kept at a time. On a GPU the kept weights stay in the machine's own memory.
"""

from __future__ import annotations

import copy
import gc
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from babeltune.modeling import loading
from babeltune.options import EmbeddingsAdapter, ModelConfig, NoAdapter, Precision, RunConfig

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Kept:
    key: object
    """Whatever determines it."""
    value: Any
    state: object
    """What it was like when it was loaded."""


_base: _Kept | None = None
_tokenizer: _Kept | None = None


def load_base(config: RunConfig, parent: Path | None, vocabulary: int) -> Any:
    """What `loading.load_base` gives, from memory where it is there, and bit for bit the same.

    A base is not kept for cells that change its own weights, for 8-bit weights, which a forward pass rearranges, or where several
    devices share it.
    """
    global _base
    if not _is_shared(config):
        drop()
        return loading.load_base(config, parent, vocabulary)
    key = _key_of_base(config, parent, vocabulary)
    if _base is not None and _base.key == key and _state_of_base(_base.value) != _base.state:
        log.warning("the base in memory is not what was loaded; it is loaded again")
        drop()
    if _base is None or _base.key != key:
        drop()
        base = loading.load_base(config, parent, vocabulary)
        _base = _Kept(key, base, _state_of_base(base))
    return _copy(_base.value)


def load_tokenizer(model: ModelConfig, parent: Path | None) -> Any:
    """What `loading.load_tokenizer` gives, from memory where it is there."""
    global _tokenizer
    place = loading.tokenizer_place(model, parent)
    key = (place, model.revision, _files(place))
    if _tokenizer is None or _tokenizer.key != key or _state_of_tokenizer(_tokenizer.value) != _tokenizer.state:
        _tokenizer = None
        tokenizer = loading.load_tokenizer(model, parent)
        _tokenizer = _Kept(key, tokenizer, _state_of_tokenizer(tokenizer))
    return _tokenizer.value


def drop() -> None:
    """Forget the base, so that there is room for another."""
    global _base
    if _base is not None:
        _base = None
        gc.collect()


def _is_shared(config: RunConfig) -> bool:
    trains_base = isinstance(config.adapter, NoAdapter | EmbeddingsAdapter) and bool(config.data.sources)
    return not trains_base and config.precision.kind is not Precision.int8 and config.trainer.processes == 1


def _key_of_base(config: RunConfig, parent: Path | None, vocabulary: int) -> object:
    model = config.model
    how = (vocabulary, config.precision.kind, loading.weight_dtype(config), config.trainer.accelerator)
    if model.fresh is not None:
        return json.dumps(model.fresh), config.seed, how
    place = loading.place(model, parent)
    return place, model.revision, _files(place), how


def _files(place: str) -> tuple[tuple[object, ...], ...]:
    """Names, sizes and times of a folder's files; nothing for a hub id, which is known by its revision."""
    folder = Path(place)
    if not folder.is_dir():
        return ()
    stats = [(path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
    return tuple((name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in stats)


def _copy(base: Any) -> Any:
    """Modules of their own around the same weights. Parameters are new objects, except those of quantised weights."""
    memo: dict[int, Any] = {}
    for parameter in base.parameters():
        memo[id(parameter)] = _shared(parameter)
        if (state := getattr(parameter, "quant_state", None)) is not None:
            memo[id(state)] = state
    return copy.deepcopy(base, memo)


def _shared(parameter: nn.Parameter) -> nn.Parameter:
    if type(parameter) is not nn.Parameter:
        return parameter
    twin = nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
    vars(twin).update(vars(parameter))
    return twin


def _state_of_base(base: nn.Module) -> list[tuple[object, ...]]:
    """Of each parameter all that a cell could have changed; of its numbers the sum of their bits."""
    return [
        (name, tuple(one.shape), one.dtype, one.device, one.requires_grad, one.grad is None, one._version, _bits(one))
        for name, one in base.named_parameters()
    ]


def _bits(tensor: Tensor) -> int:
    """The sum of a tensor's memory, eight bytes at a time: read at the speed of memory."""
    flat = tensor.detach().contiguous().view(-1).view(torch.uint8)
    words = flat.view(torch.int64) if flat.numel() % 8 == 0 and flat.storage_offset() % 8 == 0 else flat
    return int(words.sum(dtype=torch.int64))


def _state_of_tokenizer(tokenizer: Any) -> object:
    told = [
        len(tokenizer),
        tokenizer.special_tokens_map,
        tokenizer.chat_template,
        tokenizer.padding_side,
        tokenizer.truncation_side,
    ]
    backend = tokenizer.backend_tokenizer
    return repr([*told, tokenizer.model_max_length, backend.padding, backend.truncation])
