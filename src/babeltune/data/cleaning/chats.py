"""Chats that users shared: HTML to Markdown, and the filters of FastChat's `clean_sharegpt.py`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

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
    """Each conversation by itself, then the first of those that begin with the same question and answer. 8 bytes a row.

    The rows are gone through twice: the first pass keeps a digest of 64 bits of each, so that two of ten million different
    beginnings are taken for one with a chance of 3 in a million.
    """
    judge = _judge(step)

    def clean(corpus: Corpus) -> Iterator[Outcome]:
        total = len(corpus)
        digests = np.fromiter((_beginning(judge(row)) for row in corpus), np.uint64, total)
        is_first = _firsts(digests)
        for number, row in enumerate(corpus):
            outcome = judge(row)
            if isinstance(outcome, Conversation) and not is_first[number]:
                outcome = dropped(row, "same beginning")
            yield outcome
            if number % 1000 == 999:
                place.progress(number + 1, total)

    return clean


def _judge(step: TurnsStep) -> Callable[[Conversation], Outcome]:
    blocked = [word.lower() for word in step.blocked]
    refusals = tuple(step.refusals)
    digits = re.compile(rf"(\d)\1{{{step.repeated_digits - 1}}}") if step.repeated_digits else None

    def judge(row: Conversation) -> Outcome:
        head, rest = _apart(row.messages)
        if [message.role for message in row.messages] == ["text"]:
            return row
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


def _beginning(outcome: Outcome) -> int:
    """64 bits of the first question and the first answer; 0 of what is dropped already."""
    if not isinstance(outcome, Conversation):
        return 0
    first = [said(message) for message in outcome.messages if message.role != "system"][:2]
    digest = hashlib.blake2b(digest_size=8)
    for text in first:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return int.from_bytes(digest.digest(), "big") or 1


def _firsts(digests: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Whether a row is the first with its digest."""
    is_first = np.zeros(len(digests), np.bool_)
    is_first[np.unique(digests, return_index=True)[1]] = True
    return is_first
