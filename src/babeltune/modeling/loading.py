"""A base model and its tokenizer, from a folder, the hub, another cell, or fresh; in the precision that was asked for."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from babeltune.errors import ModelError, problem
from babeltune.options import Accelerator, ModelConfig, Precision, RunConfig

log = logging.getLogger(__name__)


def load_tokenizer(model: ModelConfig, parent: Path | None) -> Any:
    """The model's tokenizer; always a fast one, because masks need its offsets and speed needs its threads.

    Raises ModelError when there is none, or only a slow one.
    """
    place = _place(model, parent) if model.tokenizer is None else model.tokenizer
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, revision=_revision(model, place), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(
            problem("model.tokenizer", f"no tokenizer in {place}", "a folder or hub id with tokenizer files", "model.tokenizer=PATH")
        ) from error
    if not tokenizer.is_fast or len(tokenizer) == 0 or tokenizer.eos_token_id is None:
        raise ModelError(
            problem("model.tokenizer", f"{place} without a fast tokenizer or an end mark", "tokenizer.json", "model.tokenizer=PATH")
        )
    return tokenizer


def load_base(config: RunConfig, parent: Path | None, vocabulary: int) -> Any:
    """The base model on its device's side of loading: right weights, right precision, nothing trainable decided yet.

    `vocabulary` is the tokenizer's size, for a fresh model. Raises ModelError when weights are missing or are not safetensors.
    """
    model = config.model
    if model.fresh is not None:
        return fresh_model(model.fresh, vocabulary, config.seed)
    base = _load(_place(model, parent), config)
    rows = len(base.get_input_embeddings().weight)
    if rows < vocabulary:
        raise ModelError(
            problem(
                "model.tokenizer",
                f"{vocabulary} tokens for a model of {rows}",
                "a tokenizer that fits the model",
                "model.tokenizer=null for the model's own",
            )
        )
    return base


def load_trained(config: RunConfig, folder: Path) -> Any:
    """The whole model that a cell trained, from the cell's folder."""
    return _load(str(folder / "model"), config)


def _load(place: str, config: RunConfig) -> Any:
    model = config.model
    settings: dict[str, Any] = {"dtype": weight_dtype(config), "trust_remote_code": False, "use_safetensors": True}
    if (quantisation := _quantisation(config)) is not None:
        settings |= {"quantization_config": quantisation, "device_map": {"": _device(config)}}
    try:
        with _quiet():
            return AutoModelForCausalLM.from_pretrained(place, revision=_revision(model, place), **settings)
    except OSError as error:
        raise ModelError(_missing(place, error)) from error
    except ValueError as error:
        raise ModelError(
            problem("model.path", f"{place}, which transformers cannot read ({_first(error)})", "a causal language model", "another model")
        ) from error


def fresh_model(keys: dict[str, Any], vocabulary: int, seed: int) -> Any:
    """A random model of the architecture that the keys describe. The same seed gives the same weights."""
    keys = dict(keys)
    kind = keys.pop("model_type")
    try:
        architecture = AutoConfig.for_model(kind, vocab_size=vocabulary, **keys)
    except ValueError as error:
        raise ModelError(
            problem("model.fresh.model_type", repr(kind), "a model type of transformers", "model.fresh.model_type=llama")
        ) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(architecture)


def weight_dtype(config: RunConfig) -> torch.dtype:
    """Frozen weights may be bfloat16; weights that are trained stay float32, or small updates would be rounded away."""
    frozen = config.adapter.kind != "none" or not config.data.sources
    return torch.bfloat16 if config.precision.kind is Precision.bf16 and frozen else torch.float32


def _quantisation(config: RunConfig) -> Any | None:
    compute = torch.bfloat16 if config.trainer.accelerator is Accelerator.gpu else torch.float32
    match config.precision.kind:
        case Precision.int8:
            return BitsAndBytesConfig(load_in_8bit=True)
        case Precision.nf4:
            return BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=compute,
            )
        case Precision.fp32 | Precision.bf16:
            return None


def _device(config: RunConfig) -> Any:
    return "cpu" if config.trainer.accelerator is Accelerator.cpu else torch.cuda.current_device()


def _place(model: ModelConfig, parent: Path | None) -> str:
    """The folder or hub id that weights and tokenizer come from."""
    if parent is not None:
        if not (parent / "model" / "config.json").exists():
            raise ModelError(
                problem("model.from_cell", f"{parent} without a model folder", "a cell that trained every weight", "adapter=none there")
            )
        return str(parent / "model")
    if model.path is None:
        raise ModelError(problem("model.path", None, "a folder or hub id", "model=tiny"))
    looks_local = model.path.startswith((".", "/", "~")) or Path(model.path).exists()
    if looks_local and not (Path(model.path) / "config.json").exists():
        raise ModelError(
            problem("model.path", f"{model.path} without config.json", "a folder of a transformers model", "model.path=FOLDER")
        )
    return model.path


def _revision(model: ModelConfig, place: str) -> str | None:
    return None if Path(place).exists() else model.revision


def _missing(place: str, error: OSError) -> str:
    if Path(place).is_dir():
        found = sorted(path.name for path in Path(place).iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        got = f"{place} with {', '.join(found)}" if found else f"{place} without weights"
        return problem(
            "model.path",
            got,
            "weights in model.safetensors",
            "converting them: a pickled file may run code when it is loaded",
        )
    return problem(
        "model.path",
        f"{place}, which is neither a folder here nor to be had from the hub ({_first(error)})",
        "a local folder, or a hub id and a connection",
        "model.path=FOLDER",
    )


def _first(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """bitsandbytes says at every layer and step that it casts its inputs; once is known."""
    for name in ("bitsandbytes", "bitsandbytes.autograd._functions"):
        logging.getLogger(name).setLevel(logging.ERROR)
    yield
