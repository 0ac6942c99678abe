"""Chats that users shared: HTML to Markdown, and the filters of FastChat's `clean_sharegpt.py`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from babeltune.data.cleaning.duplicates import first_of_each
from babeltune.data.cleaning.kinds import Corpus, CorpusStep, Outcome, Place, RowStep, dropped
from babeltune.data.cleaning.texts import rewritten, said, stretches
from babeltune.records import Conversation, Message
from babeltune.steps import MarkdownStep, TurnsStep

_PAGE = r"\d+ / \d+"
_PAGER = re.compile(rf"\s*{_PAGE}(?!\d|\s*[-=+*/^%.,:<>×÷≈])\s*|\s*{_PAGE}\s*(?=<)")
"""Which of several answers is shown: noise of the page when HTML follows."""
_PAGER_LINE = re.compile(rf"\s*{_PAGE}[ \t]*(?:\n+|\Z)")
_IS_HTML = re.compile(rf"\s*(?:{_PAGE}\s*)?<(div|p|pre|span|ul|ol|h[1-6]|table|blockquote)(?:\s[^<>]*)?>", re.IGNORECASE)
_ENDS_AS_HTML = re.compile(r"</(?:div|p|pre|span|ul|ol|h[1-6]|table|blockquote)\s*>\s*\Z", re.IGNORECASE)
_BOXES = re.compile(r"</?(?:div|span)(?:\s[^<>]*)?>", re.IGNORECASE)
_COPY_CODE = re.compile(r"^(?P<fence>[ \t]*```)[ \t]*\n?[ \t]*(?P<name>[\w+#.-]{0,24})[ \t]*(?:Copy code)+[ \t]*\n?", re.MULTILINE)
_EMPTY_CODE = re.compile(r"^[ \t]*```[\w+#.-]*[ \t]*\n\s*```[ \t]*$\n?", re.MULTILINE)
_COPY_COUNT = re.compile(r"Copy\d+ chars / \d+ words")
_MANY_LINES = re.compile(r"\n{3,}")


def markdown(step: MarkdownStep, place: Place) -> RowStep:
    """HTML becomes Markdown, the page's buttons go. A text that is no HTML keeps every sign: `a < b`, `List<int>`, `a_b`."""

    def clean(conversation: Conversation) -> list[Outcome]:
        return [rewritten(conversation, to_markdown)]

    return clean


def to_markdown(text: str) -> str:
    """One message as Markdown; its headings and lists as markdownify writes them, its letters unescaped.

    A message is HTML when it begins with a block's tag and ends with one closed; other tags are what somebody wrote about.
    More than one empty line becomes one, outside of code.
    """
    text = text.replace("\r\n", "\n")
    is_html = bool(_IS_HTML.match(text) and _ENDS_AS_HTML.search(text))
    if is_html:
        text = _converted(_PAGER.sub("", text, count=1) if _PAGER.match(text) else text)
    text = _without_buttons(text)
    pager = (_PAGER if is_html else _PAGER_LINE).match(text)
    text = text[pager.end() :] if pager else text
    return "\n".join(part if is_code else _MANY_LINES.sub("\n\n", part) for part, is_code in stretches(text)).strip()


def _converted(html: str) -> str:
    from markdownify import markdownify

    return str(markdownify(_BOXES.sub("", html), escape_asterisks=False, escape_underscores=False)).strip()


def _without_buttons(text: str) -> str:
    """A block that begins with `python Copy code` becomes one fenced as Python; an empty one goes."""
    text = _COPY_COUNT.sub("", text)
    if "Copy code" not in text:
        return text
    return _EMPTY_CODE.sub("", _COPY_CODE.sub(lambda found: f"{found['fence']}{found['name']}\n", text))


def turns(step: TurnsStep, place: Place) -> CorpusStep:
    """Each conversation by itself, then the first of those that begin with the same question and answer.

    The rows are gone through twice; a digest of 128 bits of each is all that is remembered.
    """
    judge = _judge(step)

    def clean(corpus: Corpus) -> Iterator[Outcome]:
        total = len(corpus)
        digests = np.zeros((total, 2), np.uint64)
        for number, row in enumerate(corpus):
            digests[number] = _beginning(judge(row))
        twins = first_of_each(digests)
        places = {int(twin): "" for twin in np.unique(twins[twins >= 0])}
        for number, row in enumerate(corpus):
            if number in places:
                places[number] = row.place
            twin = int(twins[number])
            yield judge(row) if twin < 0 else dropped(row, "same beginning", f"as {places[twin]}")
            if number % 1000 == 999:
                place.progress(number + 1, total)

    return clean


def _judge(step: TurnsStep) -> Callable[[Conversation], Outcome]:
    blocked = [word.lower() for word in step.blocked]
    refusals = tuple(step.refusals)
    digits = re.compile(rf"(\d)\1{{{step.repeated_digits - 1}}}") if step.repeated_digits else None

    def judge(row: Conversation) -> Outcome:
        if [message.role for message in row.messages] == ["text"]:
            return row
        head, rest = _apart(row.messages)
        rest = _trimmed(rest)
        if len(rest) <= 1:
            return dropped(row, "one turn or none")
        if any(message.role != ("user", "assistant")[number % 2] for number, message in enumerate(rest)):
            return dropped(row, "roles do not alternate")
        texts = [said(message) for message in rest]
        for word in blocked:
            if any(word in text.lower() for text in texts):
                return dropped(row, "blocked word", word)
        if refusals and any(message.role == "assistant" and message.text.startswith(refusals) for message in rest):
            return dropped(row, "refusal")
        rest = _up_to_empty(rest)
        if not rest:
            return dropped(row, "empty first turns")
        if (length := sum(len(said(message).strip()) for message in rest)) < step.min_characters:
            return dropped(row, "too few characters", f"{length}")
        if digits and (found := next(filter(None, (digits.search(said(message)) for message in rest)), None)):
            return dropped(row, "repeated digits", found[1])
        return row if head + rest == row.messages else replace(row, messages=head + rest)

    return judge


def _apart(messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """A system message, if it begins with one, and the turns."""
    start = 1 if messages and messages[0].role == "system" else 0
    return messages[:start], messages[start:]


def _trimmed(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    while messages and messages[0].role != "user":
        messages = messages[1:]
    while messages and messages[-1].role == "user":
        messages = messages[:-1]
    return messages


def _up_to_empty(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Whole pairs before the first message that is empty or begins with what cannot be printed."""
    starts = [said(message).strip()[:1] for message in messages]
    stop = next((number for number, start in enumerate(starts) if not start or not start.isprintable()), len(messages))
    return messages[: stop // 2 * 2]


def _beginning(outcome: Outcome) -> NDArray[np.uint64]:
    """Two words of the first question and the first answer; zeros of what is dropped already and of a document."""
    if not isinstance(outcome, Conversation) or outcome.messages[0].role == "text":
        return np.zeros(2, np.uint64)
    digest = hashlib.blake2b(digest_size=16)
    for text in [said(message) for message in outcome.messages if message.role != "system"][:2]:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return np.frombuffer(digest.digest(), np.uint64)
