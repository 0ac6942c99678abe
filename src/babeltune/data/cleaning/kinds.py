"""What a cleaning step is to the pipeline, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from babeltune.records import Conversation, Dropped

Outcome = Conversation | Dropped

RowStep = Callable[[Conversation], Sequence[Outcome]]
"""One conversation in; itself, a changed one, several parts, or one `Dropped` out. It knows no other rows."""


class Corpus(Protocol):
    """All conversations that a step sees, on disk: can be gone through again and again, in the same order, a few in memory."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Conversation]: ...


CorpusStep = Callable[[Corpus], Iterator[Outcome]]
"""One outcome for each conversation, in their order."""


@dataclass(slots=True)
class Place:
    """What a step may use."""

    scratch: Path
    """An empty folder that is removed when the pipeline is through."""
    cache: Path
    """A folder that stays: what was paid for once (translations, perplexities) is kept here under the key of what made it."""
    tokenizer: Callable[[str | None], Any]
    """A folder or hub id to its tokenizer; None to the run's own."""
    report: dict[str, Any] = field(default_factory=dict)
    """What the step has to say beside its counts: plain values for JSON."""
    is_unfinished: bool = False
    """Set by a step that could not do some rows for now: the next run does them."""
    progress: Callable[[int, int], None] = lambda done, total: None
    """Called now and then with rows done and rows there are."""


def text_of(conversation: Conversation) -> str:
    """Everything that is said, in order, a line between."""
    return "\n".join(part for message in conversation.messages for part in (message.text, message.input) if part)


def dropped(conversation: Conversation, reason: str, detail: str = "") -> Dropped:
    """The conversation, left out for this reason."""
    return Dropped(conversation.place, reason, detail, language=conversation.language)
