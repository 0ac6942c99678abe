"""Long conversations in several, cut between pairs of turns, as FastChat does; with its bugs only when asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from babeltune.data.cleaning.kinds import Outcome, Place, RowStep, dropped
from babeltune.data.cleaning.texts import said
from babeltune.errors import ConfigError, problem
from babeltune.records import Conversation, Message
from babeltune.steps import SplitStep

Cut = tuple[int, int]
"""A segment: its first pair, and the one after its last."""


def split(step: SplitStep, place: Place) -> RowStep:
    """Pairs of a question and its answer are gathered while they fit; the system message goes on every segment.

    A turn costs its tokens, with what the tokenizer puts before or after a text, and `overhead`. A pair that alone is too long
    is left out and its neighbours are not joined over the gap. The report counts our segments and FastChat's beside them. A
    document, and a conversation whose roles do not alternate, passes as it is. `ConfigError` when max_tokens is not above 0.
    """
    if step.max_tokens < 1:
        raise ConfigError(problem("split.max_tokens", step.max_tokens, "a count above 0", "2048"))
    tokenizer = place.tokenizer(step.tokenizer)
    place.report.update(segments=0, segments_fastchat=0, lost_pairs_fastchat=0, too_long_pairs=0)

    def clean(row: Conversation) -> Sequence[Outcome]:
        head, turns = _apart(row.messages)
        if not turns:
            return [row]
        lengths = [count + step.overhead for count in token_counts(tokenizer, [said(message) for message in head + turns])]
        room = step.max_tokens - sum(lengths[: len(head)])
        pairs = [sum(lengths[at : at + 2]) for at in range(len(head), len(lengths), 2)]
        ours, theirs = cuts(pairs, room), [cut for cut in fastchat_cuts(pairs, room) if cut[0] < cut[1]]
        _count(place.report, pairs, room, ours, theirs)
        chosen = theirs if step.fastchat_bugs else ours
        if not chosen:
            return [dropped(row, "too long", f"{max(pairs):,} tokens in a pair")]
        if chosen == [(0, len(pairs))]:
            return [row if head + turns == row.messages else replace(row, messages=head + turns)]
        return [_segment(row, head, turns, cut) for cut in chosen]

    return clean


def token_counts(tokenizer: Any, texts: list[str], *, special: bool = True) -> list[int]:
    """Tokens of each text, all in one call."""
    rows = tokenizer(texts, add_special_tokens=special, return_attention_mask=False, verbose=False)["input_ids"]
    return [len(ids) for ids in rows]


def cuts(pairs: Sequence[int], room: int) -> list[Cut]:
    """Segments of pairs that together fit into `room` tokens.

    >>> cuts([4, 4, 4, 20, 4], 10)
    [(0, 2), (2, 3), (4, 5)]
    """
    found: list[Cut] = []
    start, used = 0, 0
    for number, length in enumerate(pairs):
        if used + length > room:
            found.append((start, number))
            start, used = number, 0
        if length > room:
            start = number + 1
        else:
            used += length
    found.append((start, len(pairs)))
    return [cut for cut in found if cut[0] < cut[1]]


def fastchat_cuts(pairs: Sequence[int], room: int) -> list[Cut]:
    """Segments as FastChat makes them: none for a last pair that overflows, an empty one before a first pair that is too long.

    >>> fastchat_cuts([4, 4, 4], 10)
    [(0, 2)]
    >>> fastchat_cuts([20], 10)
    [(0, 0)]
    """
    found: list[Cut] = []
    start, used = 0, 0
    for number, length in enumerate(pairs):
        if used + length > room:
            found.append((start, number))
            start, used = number, 0
        elif number == len(pairs) - 1:
            found.append((start, number + 1))
        used += length
    return found


def _apart(messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """The system message, and whole pairs of turns; no turns when the roles do not alternate."""
    start = 1 if messages and messages[0].role == "system" else 0
    turns = messages[start:]
    turns = turns[: len(turns) // 2 * 2]
    if any(message.role != ("user", "assistant")[number % 2] for number, message in enumerate(turns)):
        return messages[:start], ()
    return messages[:start], turns


def _count(report: dict[str, Any], pairs: Sequence[int], room: int, ours: list[Cut], theirs: list[Cut]) -> None:
    report["segments"] += len(ours)
    report["segments_fastchat"] += len(theirs)
    report["lost_pairs_fastchat"] += len(pairs) - sum(end - start for start, end in theirs)
    report["too_long_pairs"] += sum(length > room for length in pairs)


def _segment(row: Conversation, head: tuple[Message, ...], turns: tuple[Message, ...], cut: Cut) -> Conversation:
    start, end = cut
    return replace(row, messages=head + turns[2 * start : 2 * end], place=f"{row.place}_{2 * start}")
