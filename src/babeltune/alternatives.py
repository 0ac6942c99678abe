"""Which types there are to choose from, wherever a config group or a mapping leaves the choice to a `kind`."""

from __future__ import annotations

from babeltune import judges, suites
from babeltune.options import (
    AdaLoraAdapter,
    AdapterConfig,
    DoraAdapter,
    EmbeddingsAdapter,
    EvaluationConfig,
    ExtendVocabularyStage,
    HoulsbyAdapter,
    Ia3Adapter,
    JudgeConfig,
    LoraAdapter,
    NoAdapter,
    ParallelAdapter,
    PfeifferAdapter,
    PrefixAdapter,
    PrepareStage,
    PretrainStage,
    PromptAdapter,
    PTuningAdapter,
    RsLoraAdapter,
    StageConfig,
    TuneStage,
)
from babeltune.steps import STEPS, StepConfig

ALTERNATIVES: dict[type, dict[str, type]] = {
    AdapterConfig: {
        "none": NoAdapter,
        "lora": LoraAdapter,
        "rslora": RsLoraAdapter,
        "dora": DoraAdapter,
        "adalora": AdaLoraAdapter,
        "prompt": PromptAdapter,
        "p_tuning": PTuningAdapter,
        "prefix": PrefixAdapter,
        "sadapter_p": PfeifferAdapter,
        "sadapter_h": HoulsbyAdapter,
        "padapter": ParallelAdapter,
        "ia3": Ia3Adapter,
        "embeddings": EmbeddingsAdapter,
    },
    StageConfig: {
        "tune": TuneStage,
        "pretrain": PretrainStage,
        "prepare": PrepareStage,
        "extend_vocabulary": ExtendVocabularyStage,
    },
    EvaluationConfig: dict(suites.KINDS),
    JudgeConfig: dict(judges.KINDS),
}
"""Groups whose option chooses a type, by the value of `kind`."""

EACH_OF: dict[type, dict[str, type]] = {StepConfig: dict(STEPS)}
"""The same for the values of mappings marked `EACH`."""
