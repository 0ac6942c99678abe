"""Which conversations are trained on: no empty, garbled or held-out ones, and none of a source that is broken."""

from __future__ import annotations

import hashlib
import logging
import re
import unicodedata

from babeltune.errors import DataError, problem
from babeltune.records import Conversation, Dropped, Message, Role

log = logging.getLogger(__name__)

_GARBLED = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufffd]")
"""Control characters that are no white space, and the mark of a failed decoding."""


def keep(conversation: Conversation) -> Conversation | Dropped:
    """The conversation itself when a model can learn from it, else why not. Who is refused here is not broken."""
    reason = _refusal(conversation.messages)
    return conversation if reason is None else Dropped(conversation.place, reason, language=conversation.language)


def is_heldout(conversation: Conversation, fraction: float) -> bool:
    """Whether this prompt belongs to the share that no cell trains on.

    Decided by the first message's letters alone: width, case and white space do not count. So the same prompt is held
    out of every source, however each joins its instruction and input. A prompt that cleaning changed counts as it was and as it is.
    """
    hashes = [prompt_hash(conversation), *([] if conversation.prompt is None else [conversation.prompt])]
    return min(hashes) < fraction * 2**64


def prompt_hash(conversation: Conversation) -> int:
    """64 bits of what is first asked, the same however it is spaced or cased."""
    first = next((message for message in conversation.messages if message.role in ("user", "text")), Message("user", ""))
    text = unicodedata.normalize("NFKC", first.text + first.input).casefold()
    digest = hashlib.sha256("".join(text.split()).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")


def _refusal(messages: tuple[Message, ...]) -> str | None:
    roles = [message.role for message in messages]
    if roles == ["text"]:
        return "empty text" if _is_blank(messages[0].text) else None
    if "assistant" not in roles:
        return "no assistant turn"
    if not _alternate(roles):
        return "roles do not alternate"
    if any(message.role == "user" and _is_blank(message.text + message.input) for message in messages):
        return "empty prompt"
    if any(message.role == "assistant" and _is_blank(message.text) for message in messages):
        return "empty answer"
    if any(_GARBLED.search(message.text) or _GARBLED.search(message.input) for message in messages):
        return "garbled text"
    return None


def _alternate(roles: list[Role]) -> bool:
    turns = roles[1:] if roles[0] == "system" else roles
    return len(turns) % 2 == 0 and all(role == ("user", "assistant")[place % 2] for place, role in enumerate(turns))


def _is_blank(text: str) -> bool:
    """Nothing to see: white space, zero-width and control characters only."""
    return not any(letter.isprintable() and not letter.isspace() for letter in text)


class BadRows:
    """Counts the broken rows of one source and refuses the source when their share exceeds the limit.

    Call `see` for every row and `judge` after the last.
    """

    SHOWN = 5
    """So many are listed in the log."""
    EARLY = 10_000
    """After so many rows, a source that is mostly broken is refused without reading on."""

    def __init__(self, source: str, limit: float) -> None:
        self.source, self.limit = source, limit
        self.num_rows = 0
        self.first: list[Dropped] = []
        self.num_bad = 0

    def see(self, row: object) -> None:
        self.num_rows += 1
        if isinstance(row, Dropped) and row.is_bad:
            self.num_bad += 1
            if len(self.first) < self.SHOWN:
                self.first.append(row)
            if self.num_rows >= self.EARLY and self.num_bad > max(self.limit, 0.5) * self.num_rows:
                self.judge()

    def judge(self) -> None:
        """Log the first bad rows; `DataError` when there are too many."""
        for bad in self.first:
            log.warning("%s: %s (%s)", bad.place, bad.reason, bad.detail)
        if self.num_bad <= self.limit * self.num_rows:
            return
        first = self.first[0]
        raise DataError(
            problem(
                f"data.sources.{self.source}",
                f"{self.num_bad:,} bad rows of {self.num_rows:,} ({self.num_bad / self.num_rows:.1%}), "
                f"the first at {first.place}: {first.reason} ({first.detail})",
                f"at most {self.limit:.1%} (data.max_bad_fraction)",
                "fixing the rows or the source's format, encoding or rename, or raising data.max_bad_fraction",
            )
        )
