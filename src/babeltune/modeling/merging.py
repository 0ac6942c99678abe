"""A cell's adapter and its base as one model, for the cells that stand on it.

The merged model is a folder beside the adapter, made when the first of them asks for it. It has to be a folder: their adapters
name it as their base, a quantised base is read from files, and the processes and cells that share it need one copy.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from transformers import AutoTokenizer

from babeltune import config as configs
from babeltune.errors import BabelTuneError, ModelError, problem
from babeltune.modeling import adapters, loading
from babeltune.options import RunConfig, TrainerConfig
from babeltune.results import publish_folder, read_json, write_json, writing

log = logging.getLogger(__name__)

LEAST_AGREEMENT = 0.99
"""Share of the probe's tokens after which a merged model must find the same token likeliest."""

PROBE = (
    "请把这句话翻译成英文：今天天气很好，我们去公园散步吧。中医认为，脾胃为后天之本，气血生化之源。北京是中华人民共和国的首都。",
    "Xin chào, tôi có thể giúp gì cho bạn? Thủ đô của Việt Nam là Hà Nội. Hôm nay trời đẹp, chúng ta cùng đi dạo trong công viên.",
    "Below is an instruction that describes a task. Write a response that appropriately completes the request. The capital of "
    "France is Paris, and water boils at 100 degrees Celsius.",
)
"""Texts on which a merged model is compared with base and adapter apart."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How far a merged model is from base and adapter apart, over the tokens of `PROBE`."""

    tokens: int
    divergence: float
    """Kullback-Leibler divergence of the merged model's distribution from the other, in nats, mean over tokens."""
    agreement: float
    """Share of the tokens after which both find the same token likeliest."""


def make_whole(cell: Path, trainer: TrainerConfig) -> None:
    """Write a trained cell's `model/` if there is none yet: base and adapter merged, with the tokenizer; and `merged.json`.

    The base is the one that the adapter was trained on, number for number: rounded to bfloat16 or quantised where it was, then
    brought to float32. What passes between the layers is rounded no more, which for an 8-bit base makes another model: it is
    compared with the cell's own. Processes that ask at the same time wait for the first. Raises ModelError when the cell has not
    been trained, its base is gone, or the merged model says something else than the cell does.
    """
    target = cell / "model"
    if target.is_dir():
        return
    if not (cell / "adapter").is_dir():
        got = f"{cell} without a model or an adapter"
        raise ModelError(problem("model.from_cell", got, "a cell that has been trained", "running it first"))
    with _alone(cell):
        if target.is_dir():
            return
        merged, drift = _merged(cell, replace(_config(cell), trainer=trainer))
        tokenizer = AutoTokenizer.from_pretrained(str(cell / "adapter"))
        write_json(cell / "merged.json", {name: getattr(drift, name) for name in Drift.__slots__})
        publish_folder(lambda place: (merged.save_pretrained(place), tokenizer.save_pretrained(place)), target)
        told = f"{drift.agreement:.2%} of tokens, {drift.divergence:.2g} nats apart"
        log.info("%s: base and adapter merged; the two agree on %s", target, told)


def _merged(cell: Path, config: RunConfig) -> tuple[Any, Drift]:
    place = _base_place(cell)
    tokens = _probe(cell)
    base = loading.load_folder(place, config)
    before = None
    if config.precision.kind.quantises:
        before = _logits(adapters.load(base, cell, config), tokens)
        base = loading.load_folder(place, config).dequantize()
    model = adapters.load(base.float(), cell, config)
    before = _logits(model, tokens) if before is None else before
    merged = adapters.merge(model)
    drift = measure(before, _logits(merged, tokens))
    if not drift.agreement >= LEAST_AGREEMENT:
        raise ModelError(
            problem(
                str(cell),
                f"a merged model that agrees with base and adapter apart on {drift.agreement:.1%} of tokens",
                f"at least {LEAST_AGREEMENT:.0%}",
                "precision=fp32, bf16 or nf4 in that cell",
            )
        )
    return merged, drift


def measure(before: list[Tensor], after: list[Tensor]) -> Drift:
    """Compare two models by their logits, T × V for each text."""
    one, two = (torch.cat(logits).double().log_softmax(-1) for logits in (before, after))
    divergence = (one.exp() * (one - two)).sum(-1).mean()
    return Drift(len(one), float(divergence), float((one.argmax(-1) == two.argmax(-1)).double().mean()))


def _probe(cell: Path) -> list[Tensor]:
    tokenizer = AutoTokenizer.from_pretrained(str(cell / "adapter"))
    return [torch.tensor([tokenizer.encode(text)]) for text in PROBE]


@torch.no_grad()
def _logits(model: Any, tokens: list[Tensor]) -> list[Tensor]:
    model.eval()
    return [model(input_ids=ids.to(model.device), use_cache=False).logits[0].float().cpu() for ids in tokens]


def _base_place(cell: Path) -> str:
    """Where the base of a cell's adapter is: in the cell where it was fresh, else where the adapter says."""
    if (cell / "base").is_dir():
        return str((cell / "base").resolve())
    names = ("adapter.json", "adapter_config.json")
    record = next((path for name in names if (path := cell / "adapter" / name).exists()), cell / "adapter" / names[1])
    place = str(read_json(record).get("base_model_name_or_path") or "")
    if not place or (Path(place).is_absolute() and not Path(place).is_dir()):
        got = f"{cell}, whose adapter stands on {place or 'a base without a folder'}, which is gone"
        raise ModelError(problem("model.from_cell", got, "a cell whose base is there", "running it again"))
    return place


def _config(cell: Path) -> RunConfig:
    """What a cell was asked."""
    path = cell / "config.yaml"
    try:
        return configs.build(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError, BabelTuneError) as error:
        got = f"a file that cannot be read ({' '.join(str(error).split())[:200]})"
        raise ModelError(problem(str(path), got, "the config of a cell of this version", "running that cell again")) from error


@contextlib.contextmanager
def _alone(cell: Path) -> Iterator[None]:
    """One process at a time; the others wait. The system lets go of it when the process ends."""
    with writing(cell):
        handle = os.open(cell / ".merging", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
