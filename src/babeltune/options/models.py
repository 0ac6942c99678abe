"""Options of base models, what is attached to them, and the format of their weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING


class Precision(Enum):
    """The number format of the base model's weights."""

    fp32 = "fp32"
    bf16 = "bf16"
    int8 = "int8"
    nf4 = "nf4"

    @property
    def quantises(self) -> bool:
        """Whether bitsandbytes packs the weights."""
        return self in (Precision.int8, Precision.nf4)


@dataclass(kw_only=True)
class ModelConfig:
    """The base model: a folder or hub id, another cell, a fresh random one, or answers that others gave. Set one of the four."""

    name: str = MISSING
    title: str = ""
    path: str | None = None
    """A folder or a hub id. Weights are read from safetensors only."""
    revision: str | None = None
    """The hub commit or tag."""
    from_cell: str | None = None
    """The cell it comes from: overrides that name it (`experiment=tiny`) or its folder. What it trained is merged into its base."""
    fresh: dict[str, Any] | None = None
    """A random model: a transformers config as keys, `model_type` first."""
    answers: str | None = None
    """A file of recorded answers, judged as a model's replies would be. See `babeltune.evaluation.answers`."""
    adapter: str | None = None
    """A folder of peft's over the base, to be judged as it is (data=none). Without another base, that which it names itself."""
    tokenizer: str | None = None
    """Folder or hub id of the tokenizer; null for the model's own. `train` learns one from the mix."""
    vocabulary: int = 2048
    """Size of the tokenizer when it is trained."""
    lora_targets: list[str] = field(default_factory=list)
    """Modules that adapters attach to unless `adapter.targets` says otherwise."""
    standin: str | None = None
    """Small model of the same architecture that takes its place, under its name and with its `lora_targets`, when
    `scale.standins` is on; tables say so."""


@dataclass(kw_only=True)
class AdapterConfig:
    """What is trained."""

    kind: str = MISSING


@dataclass(kw_only=True)
class NoAdapter(AdapterConfig):
    """Every weight of the base is trained."""

    kind: str = "none"


@dataclass(kw_only=True)
class LowRankAdapter(AdapterConfig):
    """What LoRA and its variants of fixed rank have in common."""

    rank: int = 8
    """Width of the update; parameters grow linearly with it."""
    alpha: float = 16.0
    """The update is scaled by alpha / rank; by alpha / √rank in rslora."""
    dropout: float = 0.05
    """Share of the update's inputs zeroed in training."""
    targets: list[str] = field(default_factory=list)
    """Names of linear modules; empty for the model's `lora_targets`."""


@dataclass(kw_only=True)
class LoraAdapter(LowRankAdapter):
    """Low-rank updates added to frozen weights."""

    kind: str = "lora"


@dataclass(kw_only=True)
class RsLoraAdapter(LowRankAdapter):
    """LoRA scaled by alpha / √rank, so that high ranks learn as fast as low ones."""

    kind: str = "rslora"


@dataclass(kw_only=True)
class DoraAdapter(LowRankAdapter):
    """LoRA on the direction of each weight, with the length of its rows trained beside it."""

    kind: str = "dora"


@dataclass(kw_only=True)
class AdaLoraAdapter(AdapterConfig):
    """Low-rank updates whose ranks are cut, least important first, until `target_rank` is left on average."""

    kind: str = "adalora"
    initial_rank: int = 12
    """Width of each update at the start."""
    target_rank: int = 8
    """Average width at the end."""
    alpha: float = 16.0
    """The update is scaled by alpha / initial_rank."""
    dropout: float = 0.05
    """Share of the update's inputs zeroed in training."""
    first_steps: int = 200
    """Steps before the first cut. Shorter runs shorten it: see `babeltune.modeling.ranks.phases`."""
    last_steps: int = 1000
    """Steps after the last cut. Shorter runs shorten it in the same proportion."""
    interval: int = 10
    """Steps between two cuts. Shorter runs shorten it in the same proportion."""
    beta1: float = 0.85
    """Smoothing of a weight's importance over the steps."""
    beta2: float = 0.85
    """Smoothing of how uncertain its importance is."""
    orthogonality: float = 0.5
    """Weight of the penalty that keeps an update's directions apart. It is in the gradient, not in the loss that is logged."""
    targets: list[str] = field(default_factory=list)
    """Names of linear modules; empty for the model's `lora_targets`."""


@dataclass(kw_only=True)
class VirtualTokensAdapter(AdapterConfig):
    """What methods have in common that put trained tokens in front of each text. They need `data.layout=padded`."""

    tokens: int = 20
    """Trained tokens in front of each text. They take up positions, not room in `data.max_tokens`."""


@dataclass(kw_only=True)
class PromptAdapter(VirtualTokensAdapter):
    """Trained embeddings in front of each text."""

    kind: str = "prompt"


@dataclass(kw_only=True)
class PTuningAdapter(VirtualTokensAdapter):
    """Embeddings in front of each text that a small trained network writes."""

    kind: str = "p_tuning"
    hidden: int = 128
    """Width of the network."""


@dataclass(kw_only=True)
class PrefixAdapter(VirtualTokensAdapter):
    """Keys and values in front of each text, in every layer, that a small trained network writes."""

    kind: str = "prefix"
    hidden: int = 128
    """Width of the network."""


@dataclass(kw_only=True)
class BottleneckAdapter(AdapterConfig):
    """What small networks between a base's layers have in common: down to `size`, tanh, up again, added to what passes by."""

    size: int = 32
    """Width of the bottleneck; parameters grow linearly with it."""
    zero_start: bool = False
    """Start as if it were not there (the way up is zero). Else both matrices are drawn with a deviation of 0.02."""


@dataclass(kw_only=True)
class PfeifferAdapter(BottleneckAdapter):
    """One bottleneck a layer, after the feed-forward block."""

    kind: str = "sadapter_p"


@dataclass(kw_only=True)
class HoulsbyAdapter(BottleneckAdapter):
    """Two bottlenecks a layer, before and after the feed-forward block."""

    kind: str = "sadapter_h"


@dataclass(kw_only=True)
class ParallelAdapter(BottleneckAdapter):
    """A bottleneck beside what makes queries, keys and values."""

    kind: str = "padapter"


@dataclass(kw_only=True)
class Ia3Adapter(AdapterConfig):
    """A trained factor for each key, value and inner feature of the feed-forward block."""

    kind: str = "ia3"


@dataclass(kw_only=True)
class EmbeddingsAdapter(AdapterConfig):
    """The input and output embeddings are trained, one matrix where the model ties them; the layers between are frozen."""

    kind: str = "embeddings"


@dataclass(kw_only=True)
class PrecisionConfig:
    kind: Precision = Precision.fp32
