"""The values that flow from a row of data to a number in a table. All are frozen; none imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "text"]
"""Who speaks. `text` is a plain document: the model learns the whole of it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One raw record as a source stores it."""

    place: str
    """Where it stands, `path:line`, for messages."""
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    text: str
    input: str = ""
    """What an alpaca instruction, which is the `text`, is about. Each template joins the two its own way."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in order: an optional system message, then user and assistant in turn; or one `text` message."""

    messages: tuple[Message, ...]
    source: str
    language: str
    place: str
    prompt: int | None = None
    """Hash of what was first asked before any cleaning, which decides whether it is held out; None when nothing was cleaned."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row or conversation that is not trained on, and why. Every drop is counted by `reason`."""

    place: str
    reason: str
    """A short fixed phrase, the key of the count: `empty answer`, `invalid JSON`, ..."""
    detail: str = ""
    """What is particular to this row: the parser's words, the keys found."""
    language: str = ""
    """Empty for a row too broken to have one."""
    is_bad: bool = False
    """True for a broken row (counts towards `data.max_bad_fraction`), false for a sound one a filter refuses."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a conversation's text as a template lays it out."""

    text: str
    is_target: bool
    """Whether the model learns to write it, that is whether its tokens carry loss."""
    is_markup: bool = False
    """Whether the text may hold special tokens of the tokenizer (`<s>`, `</s>`, `<|im_end|>`). Content may not: a user who
    types `</s>` has typed four letters."""


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """What one source really brought into a mix, for one language."""

    source: str
    language: str
    asked: str
    """What the mix asked of this source in words: `all`, `count 500`, `fraction 0.5`, `tokens 0.3`, `temperature 2`."""
    found: int
    """Rows read from the source."""
    usable: int
    """Rows left after drops and the held-out share."""
    heldout: int
    """Rows kept away from training for evaluation."""
    taken: int
    """Rows in one epoch of the mix, repetitions counted."""
    tokens: int
    """Tokens of the taken rows in one epoch."""
    target_tokens: int
    """Those of them that carry loss."""
    token_share: float = 0.0
    """Its `tokens` as a share of the whole mix's."""
    cut_answers: int = 0
    """Usable and held-out rows whose only answer is longer than `data.max_tokens`: cut, without an end mark."""
    dropped_turns: int = 0
    """Answers left out, with their questions, at the end of usable and held-out conversations longer than `data.max_tokens`."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Rows left out, by reason."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A row before a cleaning step and after it."""

    place: str
    before: str
    after: str | None
    """None when it was dropped."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one cleaning step did."""

    source: str
    """Whose step it is; empty for a step of the whole mix."""
    name: str
    kind: str
    seen: int
    kept: int
    """Conversations that went on; more than were seen where a step splits."""
    changed: int
    dropped: Mapping[str, int]
    """Conversations left out, by reason."""
    facts: Mapping[str, Any]
    """What the step itself has to say."""
    samples: Mapping[str, Sequence[Sample]]
    """Reason of a drop, or `changed`, to a few rows. Which ones depends on what they say, not on their order."""


@dataclass(frozen=True, slots=True)
class MixLedger:
    """What really went into training: one row per source and language."""

    rows: tuple[LedgerRow, ...]
    epochs: float
    """Passes over the mix that training makes."""
    standins: tuple[str, ...] = ()
    """Sources whose rows are not the ones their card describes: `alpaca4_zh: 1,000 rows of 48,818`."""
    cleaning: tuple[StepReport, ...] = ()
    """What each cleaning step did, in the order of their work."""

    @property
    def num_rows(self) -> int:
        return sum(row.taken for row in self.rows)

    @property
    def num_tokens(self) -> int:
        return sum(row.tokens for row in self.rows)

    @property
    def num_target_tokens(self) -> int:
        return sum(row.target_tokens for row in self.rows)


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a suite."""

    id: str
    messages: tuple[Message, ...]
    """The conversation up to, not including, the answer."""
    reference: str
    category: str
    language: str
    labels: tuple[str, ...] = ()
    """What a choice is made of: `A`, `B`. Empty for a question that is answered in words."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the suite's own scores need: tests of a program, a subject, the other answers."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered to one item."""

    item: str
    text: str
    finish: Literal["stop", "length"]
    """`stop`: the model ended by itself; `length`: it was cut at `decoding.max_new_tokens`."""
    num_tokens: int
    logprobs: tuple[float, ...] = ()
    """Of each of the item's labels, where the answer is a choice."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said of one reply."""

    item: str
    outcome: Literal["scored", "refused", "truncated", "unparsable", "unreachable"]
    """Only `scored` has a value; the others are counted and are in no mean."""
    value: float | None
    text: str
    """The judge's own words."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else there is to know: the value in each order, the values of repeated judgements."""


@dataclass(frozen=True, slots=True)
class Score:
    """One measured quantity over a suite, with what it takes to trust and compare it."""

    name: str
    """`suite/metric` or `suite/metric_language`."""
    value: float | None
    """Mean over the scored items; None when nothing could be scored."""
    n: int
    """Items scored."""
    unscored: int
    """Items that could not be scored; they are in no mean."""
    signature: str
    """How it was made: metric, version, tokenisation, references. Scores of different signatures are never compared."""
    higher_is_better: bool = True
    items: Mapping[str, float] = field(default_factory=dict)
    """Item id to the item's own value."""
