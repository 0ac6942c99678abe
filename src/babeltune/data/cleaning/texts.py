"""Going over the texts of a conversation, and telling prose from fenced code."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

from babeltune.records import Conversation, Message, Role

FENCES = ("```", "~~~")


def rewritten(conversation: Conversation, change: Callable[[str], str], roles: Collection[Role] = ()) -> Conversation:
    """The conversation with every text changed, of these roles only when some are named; the very same one when nothing is."""
    messages = tuple(
        _changed(message, change) if not roles or message.role in roles else message for message in conversation.messages
    )
    return conversation if messages == conversation.messages else replace(conversation, messages=messages)


def said(message: Message) -> str:
    """A message's text and what it is about, a line between."""
    return f"{message.text}\n{message.input}" if message.input else message.text


def lines(text: str) -> Iterator[tuple[str, bool]]:
    """Each line, without its end, and whether it is code: the fences and what is between them, to the end if none closes."""
    fence = ""
    for line in text.split("\n"):
        mark = line.strip()[:3]
        if fence:
            yield line, True
            if mark == fence:
                fence = ""
        elif mark in FENCES:
            yield line, True
            if mark not in line.strip()[3:]:
                fence = mark
        else:
            yield line, False


def stretches(text: str) -> Iterator[tuple[str, bool]]:
    """Neighbouring lines of one sort together: the text, cut where code begins and ends."""
    held: list[str] = []
    was_code = False
    for line, is_code in lines(text):
        if held and is_code != was_code:
            yield "\n".join(held), was_code
            held = []
        held.append(line)
        was_code = is_code
    yield "\n".join(held), was_code


def _changed(message: Message, change: Callable[[str], str]) -> Message:
    return replace(message, text=change(message.text), input=change(message.input) if message.input else "")
