"""A base model and its tokenizer, from a folder, the hub, another cell, or fresh; in the precision that was asked for."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from babeltune.errors import ModelError, problem
from babeltune.options import Accelerator, ExtendVocabularyStage, ModelConfig, Precision, RunConfig, Strategy
from babeltune.results import publish_folder


def load_tokenizer(model: ModelConfig, parent: Path | None) -> Any:
    """The model's tokenizer; always a fast one, because masks need its offsets and speed needs its threads.

    Raises ModelError when there is none, or only a slow one.
    """
    place = tokenizer_place(model, parent)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, revision=_revision(model, place), trust_remote_code=False)
        if not tokenizer.encode("a", add_special_tokens=False):
            raise ValueError("its vocabulary is empty")  # what some classes make of a folder without their files
    except Exception as error:  # others fail, each in its own way
        got = f"no tokenizer in {place} ({_first(error)})"
        expected = "a folder, or a hub id and a connection, with tokenizer files"
        raise ModelError(problem("model.tokenizer", got, expected, "model.tokenizer=FOLDER")) from error
    if not tokenizer.is_fast:
        got = f"{type(tokenizer).__name__} in {place}, which has no fast form"
        raise ModelError(problem("model.tokenizer", got, "a tokenizer.json", "model.tokenizer=FOLDER of a converted one"))
    if tokenizer.eos_token_id is None:
        got, expected = f"{place} without an end mark", "an eos_token in tokenizer_config.json"
        raise ModelError(problem("model.tokenizer", got, expected, "adding it, or model.tokenizer=FOLDER"))
    return tokenizer


def load_base(config: RunConfig, parent: Path | None, vocabulary: int, *, as_saved: bool = False) -> Any:
    """The base model on its device's side of loading: right weights, right precision, nothing trainable decided yet.

    `vocabulary` is the tokenizer's size, for a fresh model. `as_saved` leaves weights in the format of their files, whatever the
    precision of the cell. Raises ModelError when weights are missing or are not safetensors.
    """
    model = config.model
    if model.fresh is not None:
        return fresh_model(model.fresh, vocabulary, config.seed)
    base = load_folder(place(model, parent), config, as_saved=as_saved)
    rows = len(base.get_input_embeddings().weight)
    if rows < vocabulary:
        got, expected = f"{vocabulary:,} tokens for a model of {rows:,}", "a tokenizer that fits the model"
        raise ModelError(problem("model.tokenizer", got, expected, "model.tokenizer=null for the model's own"))
    return base


def load_trained(config: RunConfig, folder: Path) -> Any:
    """The whole model that a cell trained, from the cell's folder."""
    return load_folder(str(folder / "model"), config)


def load_folder(place: str, config: RunConfig, *, as_saved: bool = False) -> Any:
    """The model in a folder, or of a hub id, in the precision of a cell. Raises ModelError as `load_base` does."""
    model = config.model
    dtype = "auto" if as_saved else weight_dtype(config)
    settings: dict[str, Any] = {"dtype": dtype, "trust_remote_code": False, "use_safetensors": True}
    if not as_saved and (quantisation := _quantisation(config)) is not None:
        hush_bitsandbytes()
        settings |= {"quantization_config": quantisation, "device_map": {"": _device(config)}}
    try:
        base, info = AutoModelForCausalLM.from_pretrained(
            place, revision=_revision(model, place), output_loading_info=True, **settings
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(_unreadable(place, error)) from error
    if info["missing_keys"]:  # transformers fills them with random numbers
        missing = sorted(info["missing_keys"])
        got = f"{place} without {len(missing)} of its weights ({', '.join(missing[:3])})"
        raise ModelError(problem("model.path", got, "every weight of its architecture", "downloading or converting it again"))
    _keep_trainable(base)
    return base


def keep_fresh(base: Any, tokenizer: Any, cell: Path) -> None:
    """Write a fresh base into its cell's `base/`, and give it that name: an adapter names the folder of the base it stands on."""
    folder = cell / "base"

    def write(place: str) -> None:
        base.save_pretrained(place)
        tokenizer.save_pretrained(place)

    if not folder.is_dir():
        publish_folder(write, folder)
    base.name_or_path = str(folder.resolve())


def _keep_trainable(base: Any) -> None:
    """On some CPUs bitsandbytes repacks nf4 weights at the first pass in evaluation mode, and gradients no longer get through."""
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def fresh_model(keys: dict[str, Any], vocabulary: int, seed: int) -> Any:
    """A random model of the architecture that the keys describe. The same seed gives the same weights."""
    architecture = fresh_architecture(keys, vocabulary)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(architecture)


def fresh_architecture(keys: dict[str, Any], vocabulary: int) -> Any:
    """The transformers config that keys describe. Raises ModelError for a model type that transformers does not have."""
    keys = dict(keys)
    kind = keys.pop("model_type")
    try:
        return AutoConfig.for_model(kind, vocab_size=vocabulary, **keys)
    except ValueError as error:
        raise ModelError(
            problem("model.fresh.model_type", repr(kind), "a model type of transformers", "model.fresh.model_type=llama")
        ) from error


def weight_dtype(config: RunConfig) -> torch.dtype:
    """Frozen weights may be bfloat16; weights that are trained stay float32, or small updates would be rounded away."""
    trained = bool(config.data.sources) and not isinstance(config.stage, ExtendVocabularyStage)
    frozen = config.adapter.kind not in ("none", "embeddings") or not trained
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
                # FSDP2 takes apart what has one type; how the bytes are stored changes no number.
                **({"bnb_4bit_quant_storage": weight_dtype(config)} if config.trainer.strategy is Strategy.fsdp else {}),
            )
        case Precision.fp32 | Precision.bf16:
            return None


def _device(config: RunConfig) -> Any:
    return "cpu" if config.trainer.accelerator is Accelerator.cpu else torch.cuda.current_device()


def place(model: ModelConfig, parent: Path | None) -> str:
    """The folder or hub id that weights and tokenizer come from."""
    if parent is not None:
        if not (parent / "model" / "config.json").exists():
            got, expected = f"{parent} without a model folder", "a cell that has been trained"
            raise ModelError(problem("model.from_cell", got, expected, "running it first"))
        return str((parent / "model").resolve())
    if model.path is None:
        raise ModelError(problem("model.path", None, "a folder or hub id", "model=tiny"))
    found = _absolute(model.path)
    if Path(found).is_absolute() and not (Path(found) / "config.json").exists():
        got = f"{model.path} without config.json"
        raise ModelError(problem("model.path", got, "a folder of a transformers model", "model.path=FOLDER"))
    return found


def tokenizer_place(model: ModelConfig, parent: Path | None) -> str:
    """The folder or hub id that the tokenizer comes from: its own, or the model's.

    A cell's tokenizer lies beside its adapter too, and is wanted before the two are merged.
    """
    if model.tokenizer is not None:
        return _absolute(model.tokenizer)
    if parent is not None and not (parent / "model").is_dir() and (parent / "adapter").is_dir():
        return str((parent / "adapter").resolve())
    return place(model, parent)


def _absolute(place: str) -> str:
    """A folder's whole path, so that what is written about it holds anywhere; a hub id as it is."""
    path = Path(place).expanduser()
    return str(path.resolve()) if place.startswith((".", "/", "~")) or path.exists() else place


def _revision(model: ModelConfig, place: str) -> str | None:
    """`model.revision` is of the hub model, not of a folder or of another repository that holds the tokenizer."""
    return model.revision if place == model.path and not Path(place).exists() else None


def _unreadable(place: str, error: Exception) -> str:
    folder = Path(place)
    if not folder.is_dir():
        if isinstance(error, OSError):
            got = f"{place}, which is neither a folder here nor to be had from the hub ({_first(error)})"
            return problem("model.path", got, "a local folder, or a hub id and a connection", "model.path=FOLDER")
    elif not list(folder.glob("*.safetensors")):
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        got = f"{place} with {', '.join(pickled)}" if pickled else f"{place} without weights"
        hint = "converting them: a pickled file may run code when it is loaded" if pickled else "downloading it again"
        return problem("model.path", got, "weights in model.safetensors", hint)
    got = f"{place}, which transformers cannot read ({_first(error)})"
    return problem("model.path", got, "a causal language model with sound files", "downloading it again, or another model")


def _first(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__


def hush_bitsandbytes() -> None:
    """It says at every layer and step that it casts its inputs."""
    for name in ("bitsandbytes", "bitsandbytes.autograd._functions"):
        logging.getLogger(name).setLevel(logging.ERROR)
