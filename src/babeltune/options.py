"""Every option there is: one dataclass per config group, each field with its meaning and unit. Values live in `conf/`.

These classes are Hydra's schema and, after `babeltune.config.build`, what the code receives. Nobody assigns to them after that.
"""

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


class Strategy(Enum):
    """How several devices share one cell."""

    single = "single"
    ddp = "ddp"
    """Every device holds the whole model."""
    fsdp = "fsdp"
    """Weights, gradients and the optimizer's state lie in pieces on the devices (FSDP2)."""
    deepspeed = "deepspeed"
    """Gradients and the optimizer's state lie in pieces on the devices (ZeRO-2)."""


class Attention(Enum):
    """How documents that lie side by side are kept apart. The numbers are the same but for rounding."""

    auto = "auto"
    """`flash` on a GPU in bfloat16, else `documents` where the family can, else `mask`."""
    documents = "documents"
    """Rows without padding, and attention for one document after the other; nothing is computed that is not seen."""
    mask = "mask"
    """All pairs of tokens of a row, those that do not see each other masked: every family can."""
    flex = "flex"
    """Rows with padding, and FlexAttention, which leaves out whole blocks of pairs. GPU only."""
    flash = "flash"
    """Rows without padding, and FlashAttention for documents of different lengths. GPU and bfloat16 only."""


class Accelerator(Enum):
    cpu = "cpu"
    gpu = "gpu"


class Schedule(Enum):
    """How the learning rate falls after the warm-up."""

    constant = "constant"
    linear = "linear"
    cosine = "cosine"


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


class Scores(Enum):
    """What SentencePiece's pieces are worth behind those of a base: the best pair of a text is merged first."""

    falling = "falling"
    """Each a little less than the worst of the base's, in the order they were learned: what the base merges, it merges first."""
    keep = "keep"
    """What they were worth where they were learned; BELLE's way."""
    zero = "zero"
    """All alike, and as much as the best; Chinese-LLaMA-Alpaca's way."""


class NewRows(Enum):
    """What the weights of a new piece begin with. Every way leaves the old rows as they are."""

    pieces = "pieces"
    """The mean of the rows of the pieces that wrote it before."""
    mean = "mean"
    """The mean of all old rows."""
    random = "random"
    """Drawn with the run's seed, with the deviation that the model's own weights were drawn with."""


class Texts(Enum):
    """How plain texts become examples of at most `data.max_tokens` tokens."""

    apart = "apart"
    """Each by itself, a long one in several blocks. No text sees another."""
    joined = "joined"
    """The texts of a source one after another, cut into blocks of one length. Those of a block see each other."""


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


@dataclass(kw_only=True)
class TemplateConfig:
    """How a conversation is laid out as text."""

    name: str = MISSING
    """alpaca, belle, vicuna, vi_chat, vi_doctor, plain, or chat for the tokenizer's own."""


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


@dataclass(kw_only=True)
class TrainerConfig:
    """The devices, and what fits on them. Nothing here changes which examples make a step."""

    name: str = MISSING
    accelerator: Accelerator = Accelerator.cpu
    strategy: Strategy = Strategy.single
    devices: int = 1
    """Processes of each machine that share a cell, one device each."""
    nodes: int = 1
    """Machines that share a cell. With more than one, torchrun or srun starts the processes: docs/scale.md."""
    threads: int = 1
    """CPU threads of each process. Fixed, so that numbers do not depend on the machine's size or load."""
    micro_tokens: int = 1024
    """The most tokens in one forward pass, padding included, or a single example; a step is cut into as many as it needs."""
    attention: Attention = Attention.auto
    """How documents that lie side by side are kept apart."""
    checkpointing: bool = False
    """Compute each layer again in the backward pass in place of keeping what is inside it: less memory, a third more time."""
    compile: bool = False
    """Have torch.compile make each layer's kernels: worth its minutes of compiling only in long runs."""
    checkpoint_steps: int = 50
    """Steps between checkpoints."""

    @property
    def processes(self) -> int:
        """Processes that share a cell, on all machines."""
        return self.nodes * self.devices


@dataclass(kw_only=True)
class StageConfig:
    """What a cell does before it is judged."""

    kind: str = MISSING


@dataclass(kw_only=True)
class TuneStage(StageConfig):
    """Learn the assistant's turns of a mix of conversations."""

    kind: str = "tune"


@dataclass(kw_only=True)
class PretrainStage(StageConfig):
    """Learn every token of plain text."""

    kind: str = "pretrain"
    texts: Texts = Texts.apart


@dataclass(kw_only=True)
class PrepareStage(StageConfig):
    """Read, clean, count and tokenise the mix, print its ledger, and train nothing."""

    kind: str = "prepare"
    samples: int = 0
    """Rows to show of each cleaning step and reason, as they were and as they are."""


@dataclass(kw_only=True)
class ExtendVocabularyStage(StageConfig):
    """Give the tokenizer pieces learned from the mix's text, and the base a row of weights for each. No weight is trained."""

    kind: str = "extend_vocabulary"
    size: int = 20000
    """Pieces to learn. Of SentencePiece's, those that the base has already are not added."""
    coverage: float = 0.9995
    """Share of the text's characters that get a piece of their own; the rarest are written as bytes. A byte-level tokenizer has no
    such choice."""
    max_lines: int | None = None
    """The most lines to learn from, drawn from the mix's at random; null for all. They are read one by one, but SentencePiece keeps
    all it is given in memory (its `input_sentence_size` is 0)."""
    pieces: str | None = None
    """A SentencePiece model (`tokenizer.model`) whose pieces are taken in place of learning some from the mix."""
    scores: Scores = Scores.falling
    new_rows: NewRows = NewRows.pieces
    measured_lines: int = 5000
    """The most lines of each language on which tokens are counted before and after."""


@dataclass(kw_only=True)
class OptimizerConfig:
    """AdamW and its schedule."""

    learning_rate: float = 3e-4
    schedule: Schedule = Schedule.linear
    warmup_steps: int | None = None
    """Steps over which the rate rises from zero; null to use `warmup_fraction`."""
    warmup_fraction: float = 0.03
    weight_decay: float = 0.0
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    epochs: float = 3.0
    """Passes over the mix."""
    max_steps: int | None = None
    """The most optimizer steps, if fewer than the epochs make."""
    global_batch: int = 32
    """Examples in one optimizer step, over all devices."""
    clip: float | None = 1.0
    """Largest norm of the gradient; null for no clipping."""


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
