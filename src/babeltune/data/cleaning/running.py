"""A model from a folder or the hub, and texts through it in batches that do not change what comes out. Loads torch when asked."""

# B texts of a batch, T tokens

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from babeltune.data import sources
from babeltune.data.cleaning.kinds import Place
from babeltune.errors import ConfigError, ModelError, problem
from babeltune.steps import StepConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")

WINDOW_BATCHES = 32
"""Texts of so many batches are sorted by length at a time."""
DTYPES = ("float32", "bfloat16")
_MODEL_FILES = {".json", ".safetensors", ".model", ".txt", ".jinja", ".spm"}


@dataclass(frozen=True, slots=True)
class Named:
    """The model that a step names."""

    where: str
    """The option, for messages: cleaning.reward.model."""
    path: str
    revision: str | None
    dtype: str = "float32"
    expected: str = "a folder, or a hub id and a connection, of a transformers model"

    def identity(self, place: Place) -> str:
        """A local folder is known by its bytes, a hub model by its name and revision."""
        folder = Path(self.path).expanduser()
        if folder.is_dir():
            files = sorted(file for file in folder.iterdir() if file.suffix in _MODEL_FILES)
            return f"{sources.digest_files(files, place.cache / sources.DIGESTS)} {self.dtype}"
        return f"{self.path}@{self.revision or 'main'} {self.dtype}"

    def missing(self, error: BaseException) -> ModelError:
        folder = Path(self.path).expanduser()
        said = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
        pickled = sorted(file.name for file in folder.glob("*") if file.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        if not folder.is_dir():
            got, hint = f"{self.path}, which is neither a folder here nor to be had from the hub ({said})", f"{self.where}=FOLDER"
        elif not list(folder.glob("*.safetensors")):
            got = f"{self.path} with {', '.join(pickled)}" if pickled else f"{self.path} without weights in safetensors"
            hint = "converting them: a pickled file may run code when it is loaded" if pickled else "downloading it again"
        else:
            got, hint = f"{self.path}, which transformers cannot read ({said})", "another model, or downloading it again"
        return ModelError(problem(self.where, got, self.expected, hint))


def named(step: Any, expected: str) -> Named:
    """The step's model. Raises ConfigError when it names none, or a dtype that is none."""
    where = option(step, "model")
    if not step.model:
        raise ConfigError(problem(where, "nothing", expected, f"{where}=FOLDER"))
    dtype = getattr(step, "dtype", "float32")
    if dtype not in DTYPES:
        raise ConfigError(problem(option(step, "dtype"), repr(dtype), f"one of {', '.join(DTYPES)}", "float32"))
    return Named(where, step.model, step.revision, dtype, expected)


def option(step: StepConfig, name: str) -> str:
    """What an option of the step is called in messages."""
    return f"cleaning.{step.kind}.{name}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to be asked, on a GPU when there is one."""

    model: Any
    tokenizer: Any
    device: torch.device
    where: str

    @property
    def context(self) -> int | None:
        """The most tokens that the model takes; None where it does not say."""
        known = (getattr(self.model.config, "max_position_embeddings", None), self.tokenizer.model_max_length)
        return min((int(one) for one in known if isinstance(one, int | float) and 0 < one < 10**9), default=None)

    def check(self, max_tokens: int) -> None:
        """Raises ConfigError for more tokens than the model takes."""
        if self.context is not None and max_tokens > self.context:
            where = self.where.replace(".model", ".max_tokens")
            expected = f"at most {self.context}, what {self.model.config._name_or_path} takes"
            raise ConfigError(problem(where, max_tokens, expected, f"{where}={self.context}"))


def load(asked: Named, class_name: str, unused: tuple[str, ...] = ()) -> Loaded:
    """Weights from safetensors, no code of the model's own. Parts named in `unused` may be missing.

    Raises ModelError when there is no such model, or one without some of its weights.
    """
    import torch
    import transformers
    from safetensors import SafetensorError

    folder = Path(asked.path).expanduser()
    path = str(folder) if folder.is_dir() else asked.path
    about = {"revision": None if folder.is_dir() else asked.revision, "trust_remote_code": False}
    try:
        model, info = getattr(transformers, class_name).from_pretrained(
            path, **about, dtype=getattr(torch, asked.dtype), use_safetensors=True, output_loading_info=True
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, **about)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
        raise asked.missing(error) from error
    missing = sorted(key for key in info["missing_keys"] if not any(part in key for part in unused))
    if missing:  # transformers fills them with random numbers
        got = f"{asked.path} without {len(missing)} of the weights ({', '.join(missing[:3])})"
        raise ModelError(problem(asked.where, got, asked.expected, "a model that was trained for this"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Loaded(model.to(device).eval().requires_grad_(False), tokenizer, device, asked.where)


def encode(tokenizer: Any, text: str, max_tokens: int | None = None, *, special: bool = True) -> list[int]:
    """Token ids of the text's beginning. Half a pair of surrogates, which no tokenizer takes, becomes a question mark."""
    text = text.encode("utf-8", "replace").decode()
    cut = {"truncation": True, "max_length": max_tokens} if max_tokens is not None else {"truncation": False}
    ids: list[int] = tokenizer(text, add_special_tokens=special, verbose=False, **cut)["input_ids"]
    return ids


def in_batches(rows: Sequence[Sequence[int]], batch: int, run: Callable[[list[Sequence[int]]], list[T]]) -> list[T]:
    """What `run` makes of the rows, in their order."""
    made = dict(by_length(rows, batch, run))
    return [made[number] for number in range(len(rows))]


def by_length(rows: Sequence[Sequence[int]], batch: int, run: Callable[[list[Sequence[int]]], list[T]]) -> Iterator[tuple[int, T]]:
    """The rows' numbers with what `run` makes of them, batch by batch: it is given rows of like length, longest first."""
    import torch

    order = sorted(range(len(rows)), key=lambda number: -len(rows[number]))
    for start in range(0, len(order), batch):
        numbers = order[start : start + batch]
        with torch.inference_mode():
            made = run([rows[number] for number in numbers])
        yield from zip(numbers, made, strict=True)


def padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """ids_BT and mask_BT, filled at the right: positions start at 0 whatever stands beside a row."""
    import torch

    width = max(map(len, rows))
    ids_BT = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=device)
    mask_BT = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    return ids_BT, mask_BT


def pad_id(tokenizer: Any, rows: Sequence[Sequence[int]]) -> int:
    """The tokenizer's pad token; where it has none, or one that ends texts as well, the lowest id that no row has.

    Attention never looks at it, but classifiers on top of language models look for the last token that is not it.
    """
    own = tokenizer.pad_token_id
    if own is not None and own != tokenizer.eos_token_id:
        return int(own)
    present = set(itertools.chain.from_iterable(rows))
    return next(number for number in itertools.count() if number not in present)


def windows(items: Iterable[T], size: int) -> Iterator[list[T]]:
    items = iter(items)
    while part := list(itertools.islice(items, size)):
        yield part
