"""Every option there is: one dataclass per config group, each field with its meaning and unit. Values live in `conf/`.

These classes are Hydra's schema and, after `babeltune.config.build`, what the code receives. Nobody assigns to them after that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from babeltune.options.data import (
    EACH,
    Contamination,
    ContaminationConfig,
    DataConfig,
    Format,
    Layout,
    LossOn,
    Order,
    SourceConfig,
    TakeConfig,
    TemperatureOver,
    ToyConfig,
)
from babeltune.options.evaluation import DecodingConfig, EvaluationConfig, JudgeConfig, TemplateConfig
from babeltune.options.models import (
    AdaLoraAdapter,
    AdapterConfig,
    BottleneckAdapter,
    DoraAdapter,
    EmbeddingsAdapter,
    HoulsbyAdapter,
    Ia3Adapter,
    LoraAdapter,
    LowRankAdapter,
    ModelConfig,
    NoAdapter,
    ParallelAdapter,
    PfeifferAdapter,
    Precision,
    PrecisionConfig,
    PrefixAdapter,
    PromptAdapter,
    PTuningAdapter,
    RsLoraAdapter,
    VirtualTokensAdapter,
)
from babeltune.options.training import (
    Accelerator,
    Attention,
    ExtendVocabularyStage,
    NewRows,
    OptimizerConfig,
    PrepareStage,
    PretrainStage,
    Schedule,
    Scores,
    StageConfig,
    Strategy,
    Texts,
    TrainerConfig,
    TuneStage,
)
from babeltune.steps import StepConfig

__all__ = [
    "EACH",
    "Accelerator",
    "AdaLoraAdapter",
    "AdapterConfig",
    "Attention",
    "BottleneckAdapter",
    "Contamination",
    "ContaminationConfig",
    "DataConfig",
    "DecodingConfig",
    "DoraAdapter",
    "EmbeddingsAdapter",
    "EvaluationConfig",
    "ExtendVocabularyStage",
    "Format",
    "GridConfig",
    "HoulsbyAdapter",
    "Ia3Adapter",
    "JudgeConfig",
    "Layout",
    "LoggerConfig",
    "LoraAdapter",
    "LossOn",
    "LowRankAdapter",
    "ModelConfig",
    "NewRows",
    "NoAdapter",
    "OptimizerConfig",
    "Order",
    "PTuningAdapter",
    "ParallelAdapter",
    "PathsConfig",
    "PfeifferAdapter",
    "Precision",
    "PrecisionConfig",
    "PrefixAdapter",
    "PrepareStage",
    "PretrainStage",
    "PromptAdapter",
    "RsLoraAdapter",
    "RunConfig",
    "ScaleConfig",
    "Schedule",
    "Scores",
    "SourceConfig",
    "StageConfig",
    "Strategy",
    "TakeConfig",
    "TemperatureOver",
    "TemplateConfig",
    "Texts",
    "ToyConfig",
    "TrainerConfig",
    "TuneStage",
    "VirtualTokensAdapter",
]


@dataclass(kw_only=True)
class LoggerConfig:
    """Where results are mirrored. The files in the cell's folder are the truth."""

    kind: str = "wandb"
    """wandb: a Weights & Biases run per cell; none: files only."""
    project: str = "babeltune"
    mode: str = "auto"
    """auto: online when an API key is set, else offline; or offline, online."""


@dataclass(kw_only=True)
class ScaleConfig:
    """How much of the papers' size is run."""

    name: str = MISSING
    standins: bool = False
    """Put `model.standin` in the place of the model."""
    base: str = "paper"
    """The scale at which the embedded models are pretrained."""


@dataclass(kw_only=True)
class PathsConfig:
    data: str = "data"
    """Folder with one folder per source."""
    outputs: str = "outputs"
    """Folder that every result is written to."""
    answers: str = "answers.jsonl"
    """File of recorded answers, for model=answers."""


@dataclass(kw_only=True)
class GridConfig:
    """A list of cells and how they are run."""

    name: str | None = None
    """What the grid is called in W&B and on disk; null for a name made of its cells."""
    title: str = ""
    baseline: str | None = None
    """Label of the row the others are compared with; null for the first."""
    workers: int | None = None
    """Cells trained at a time; null for as many as have GPUs of their own, and on a CPU one for each core, at most two."""
    cells: list[Any] = field(default_factory=list)
    """Cells beside those of a sweep's axes: each says by keys and values what it has in place of the sweep's own choices."""


@dataclass(kw_only=True)
class RunConfig:
    """One cell: everything that is known before it starts."""

    data: DataConfig
    model: ModelConfig
    adapter: AdapterConfig
    precision: PrecisionConfig
    trainer: TrainerConfig
    stage: StageConfig
    template: TemplateConfig
    optimizer: OptimizerConfig
    evaluation: EvaluationConfig
    decoding: DecodingConfig
    judge: JudgeConfig
    logger: LoggerConfig
    scale: ScaleConfig
    paths: PathsConfig
    grid: GridConfig
    cleaning: dict[str, Any] = field(default_factory=dict, metadata={EACH: StepConfig})
    """Name to step: what is done to the whole mix, after each source's own steps. See `babeltune.steps`."""
    seed: int = 0
    """Seed of everything random: initial adapter, order, drawing of rows, dropout, sampling."""
    plan: bool = False
    """Print what the run would take, and train nothing. No part of a cell."""
