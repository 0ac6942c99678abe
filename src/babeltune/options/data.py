"""Options of mixes: their sources, how much of each, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING

from babeltune.steps import StepConfig

EACH = "each"
"""Marks a mapping of names to values of one of several types, chosen by their `kind`: Hydra lets anything in, `build` does not."""


class TemperatureOver(Enum):
    """Whose sizes a temperature makes more alike."""

    source = "source"
    language = "language"


class Format(Enum):
    """How a source writes its rows."""

    alpaca = "alpaca"
    """`instruction`, `input`, `output`, and sometimes `history` (pairs of earlier turns) or `system`."""
    prompt_response = "prompt_response"
    """`prompt`, `response`."""
    sharegpt = "sharegpt"
    """`conversations`: a list of `from`/`value`; roles human, user, gpt, assistant, system."""
    messages = "messages"
    """`messages`: a list of `role`/`content`."""
    text = "text"
    """`text`: a plain document."""
    niv2 = "niv2"
    """A task of Natural Instructions: `Definition`, and `Instances` of `input` and `output`. Each instance is a conversation."""


class Layout(Enum):
    """How the examples of one step are laid into rows. It changes speed, never which examples make a step."""

    packed = "packed"
    """Several examples share a row without seeing each other."""
    padded = "padded"
    """One example a row, filled up to the longest."""


class Order(Enum):
    """Which examples meet in a step."""

    shuffled = "shuffled"
    """A fresh permutation each epoch, a function of (seed, epoch) alone."""
    grouped = "grouped"
    """Shuffled, then examples of like length are brought together: less padding, less random steps."""


class LossOn(Enum):
    """What of a conversation is learned."""

    answers = "answers"
    """What the assistant says, and its end marks."""
    everything = "everything"
    """The questions and the template's words too. A text that is too long is cut at `data.max_tokens`, wherever that is."""


@dataclass(kw_only=True)
class ToyConfig:
    """Rows the product generates itself, with known right answers."""

    rows: int = MISSING
    """How many rows to generate."""
    language: str | None = None
    """The language of the rows; null for documents in all three."""
    wrong_fraction: float = 0.0
    """Share of rows whose answer is wrong on purpose."""
    documents: bool = False
    """Plain text that states the facts, in place of instructions that ask for them."""
    seed: int = 0
    """Which rows are drawn. Not the run's seed: a data set does not change between runs."""


@dataclass(kw_only=True)
class SourceConfig:
    """A data set, described once."""

    name: str = MISSING
    """Its folder below `paths.data`."""
    title: str = ""
    language: str = MISSING
    """A short tag: zh, vi, en. A row's own `lang` or `language` field wins."""
    format: Format = Format.alpaca
    hub_id: str | None = None
    """Where it is fetched from when `paths.data` does not have it."""
    revision: str | None = None
    """The hub commit or tag."""
    files: list[str] = field(default_factory=list)
    """File names or patterns to read, here and on the hub; empty for every data file."""
    hub_files: list[str] = field(default_factory=list)
    """File names or patterns on the hub, where they differ from those in the folder; empty for `files`."""
    encoding: str = "utf-8"
    """How text files are written. It is never guessed."""
    rename: dict[str, str] = field(default_factory=dict)
    """The source's field name to the format's field name."""
    expected_rows: int | None = None
    """Rows the described data set has. Other counts mark the data as a stand-in."""
    license: str = ""
    note: str = ""
    """What a reader of a table must know about it."""
    cleaning: dict[str, Any] = field(default_factory=dict, metadata={EACH: StepConfig})
    """Name to step: what is done to its rows before anything else, in this order. See `babeltune.steps`."""
    toy: ToyConfig | None = None
    """Set for a source that is generated in place of read."""


@dataclass(kw_only=True)
class TakeConfig:
    """How much of one source a mix takes. Set one of the four; none takes every row once."""

    count: int | None = None
    """So many rows, drawn with the run's seed; more than there are repeats rows."""
    fraction: float | None = None
    """This share of the rows; above 1 repeats rows."""
    weight: float | None = None
    """Rows in this proportion to the other weighted sources, as many as go without repeating a row."""
    tokens: float | None = None
    """This share of all tokens of the mix, prompts included, as data mixes are stated (arXiv:2302.13971, table 1). Beside sources
    that have no share it repeats rows where it must, at most `data.max_passes` times; where every source has one, nothing is
    repeated."""


class Contamination(Enum):
    """What is done with rows that hold items of the evaluation."""

    report = "report"
    """They are trained on, counted, and named in the result and under tables."""
    drop = "drop"
    """They are left out. The cell then depends on what it is judged on."""
    off = "off"


@dataclass(kw_only=True)
class ContaminationConfig:
    """How the mix is compared with what the run is judged on. See `babeltune.data.contamination`."""

    action: Contamination = Contamination.report
    words: int = 13
    """Length of an n-gram in words, for languages written with spaces; Vietnamese syllables are such words."""
    characters: int = 20
    """Length of an n-gram in characters, for Chinese and other scripts without spaces."""
    overlap: float = 0.5
    """Share of the n-grams of an item's question, or of its reference, that one message must hold; 0 for a single one."""
    against: dict[str, SourceConfig] = field(default_factory=dict)
    """More to compare with: data sets that others evaluate on."""


@dataclass(kw_only=True)
class DataConfig:
    """A mix: which sources, and how much of each."""

    name: str = MISSING
    title: str = ""
    """The papers' notation, for tables: `zh(alpaca-4)`."""
    sources: dict[str, SourceConfig] = field(default_factory=dict)
    take: dict[str, TakeConfig] = field(default_factory=dict)
    """Source name to how much of it; a source that is not named is taken whole."""
    quota: dict[str, int] = field(default_factory=dict)
    """Language to the most rows of it, drawn from all its sources alike."""
    max_rows: int | None = None
    """The most rows in the whole mix, drawn so that proportions of rows stay."""
    temperature: float = 1.0
    """Sources or languages get shares of the mix in proportion to rows^(1 / temperature): 1 is plain concatenation, above 1 cuts
    the large and repeats the small. The mix has as many rows as the concatenation."""
    temperature_over: TemperatureOver = TemperatureOver.source
    max_passes: float = 4.0
    """The most passes over its rows for which a token share or a temperature may repeat a source or language; past it the mix is
    refused. Up to 4, repeated rows are nearly as good as new ones (arXiv:2305.16264)."""
    max_tokens: int = 512
    """Longest example in tokens. Longer conversations lose whole turns from the end; one with no answer left is dropped."""
    loss_on: LossOn = LossOn.answers
    max_bad_fraction: float = 0.01
    """Share of broken rows above which a source is refused."""
    heldout_fraction: float = 0.02
    """Share of each source's prompts that no cell trains on, chosen by their content; generated sources hold out nothing."""
    contamination: ContaminationConfig = field(default_factory=ContaminationConfig)
    layout: Layout = Layout.packed
    order: Order = Order.shuffled
    workers: int = 0
    """Loader processes. They change speed, never order."""
