"""Options of devices, of what a cell does, and of the optimizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING


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
