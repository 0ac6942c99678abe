"""Options of how models are asked, and by what they are judged."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from babeltune.options.data import SourceConfig


@dataclass(kw_only=True)
class TemplateConfig:
    """How a conversation is laid out as text."""

    name: str = MISSING
    """alpaca, belle, vicuna, vi_chat, vi_doctor, plain, or chat for the tokenizer's own."""


@dataclass(kw_only=True)
class EvaluationConfig:
    """The items a cell is judged on, and by which metrics. The first metric is the score of the tables."""

    kind: str = MISSING
    name: str = MISSING
    sources: dict[str, SourceConfig] = field(default_factory=dict)
    metrics: list[str] = field(default_factory=list)
    max_items: int = 150
    """The most items of each language (toy) or source."""
    prompt: str = "{question}"
    """How a suite asks: text around `{question}`, the user's words. A row's input follows it, or stands at `{input}`."""
    prompt_tokens: int | None = None
    """The longest prompt, in tokens; null for `data.max_tokens`. Worked examples are left out until a prompt fits."""
    decoding: DecodingConfig | None = None
    """How a suite is answered that says so itself, whatever `decoding` is; null to follow it. Scales with stand-ins keep it as
    short as `decoding`."""
    batch: int = 32
    """Prompts generated from together."""


@dataclass(kw_only=True)
class DecodingConfig:
    """How replies are generated."""

    name: str = MISSING
    max_new_tokens: int = 256
    min_new_tokens: int | None = None
    sample: bool = False
    """Draw tokens at random; false takes the likeliest."""
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    no_repeat_ngram: int | None = None
    """No run of so many tokens comes twice in prompt and reply; null for no such rule."""
    beams: int = 1


@dataclass(kw_only=True)
class JudgeConfig:
    """Who scores the replies."""

    kind: str = MISSING
