"""Questions that are rows of files, in the form that each published set has. See `babeltune.suites.RowsSuite` for what is chosen.

A set of questions is what it says it is or it is refused: a row that cannot be read, or lacks a field, is no reason to ask the
others.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from babeltune.data import formats, sources
from babeltune.errors import DataError, problem
from babeltune.evaluation.judging.wording import repaired
from babeltune.options import RunConfig, SourceConfig
from babeltune.records import Dropped, Item, Message, Reply, Row
from babeltune.suites import RowsSuite, SameQuestion

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """One row as a question."""

    place: str
    name: str
    """What it is known by within its source, whatever its place."""
    message: Message
    references: tuple[str, ...]
    category: str
    language: str


def items(config: RunConfig) -> list[Item]:
    """The chosen rows of every source, each source's in an order that depends on what they say and on `sample_seed`.

    Raises DataError for a source that cannot be had, a row that is no question, and an id that stands for two.
    """
    suite, root = _suite(config), Path(config.paths.data)
    found: list[Item] = []
    for source in suite.sources.values():
        rows = list(_rows(source, root))
        prompts = {repaired(_text(row, "class", "")): _text(row, "prompt", "") for row in rows if _is_prompt(row, suite)}
        questions = [row for row in rows if not _is_prompt(row, suite)]
        if source.expected_rows not in (None, len(questions)):
            log.warning("%s has %d rows where its card says %d", source.name, len(questions), source.expected_rows)
        asked = _joined(list(_asked(questions, suite, source)), suite)
        asked.sort(key=lambda one: hashlib.sha256(f"{suite.sample_seed}/{one.name}".encode()).digest())
        found += [_item(one, source, prompts) for one in asked[: suite.sample][: suite.max_items]]
    return found


def answers(config: RunConfig, replies: Sequence[Reply]) -> list[Reply]:
    """The replies up to `answer_ends`."""
    mark = _suite(config).answer_ends
    return [replace(reply, text=reply.text.partition(mark)[0].strip()) if mark else reply for reply in replies]


def _suite(config: RunConfig) -> RowsSuite:
    assert isinstance(config.evaluation, RowsSuite)
    return config.evaluation


def _is_prompt(row: Row, suite: RowsSuite) -> bool:
    """Whether the row tells a judge what to do."""
    return bool(suite.judge_prompts) and fnmatch(Path(row.place.rpartition(":")[0]).name, suite.judge_prompts)


def _asked(rows: Iterable[Row], suite: RowsSuite, source: SourceConfig) -> Iterator[Asked]:
    for row in rows:
        if any(_text(row, path, "where") != wanted for path, wanted in suite.where.items()):
            continue
        language = formats.language(row.fields, source)
        if suite.languages and language not in suite.languages:
            continue
        message = Message("user", _text(row, suite.question, "question"), _optional(row, suite.input, "input"))
        if not message.text:
            raise DataError(problem(row.place, f"an empty {suite.question!r}", "a question", "repairing the file"))
        category = repaired(_optional(row, suite.category, "category"))
        category = {repaired(name): new for name, new in suite.categories.items()}.get(category, category)
        references = _references(row, suite.reference)
        name = _optional(row, suite.id, "id") or _named(suite, message, references, category)
        yield Asked(row.place, name, message, references, category, language)


def _named(suite: RowsSuite, message: Message, references: Sequence[str], category: str) -> str:
    words = [message.text, message.input, *([*references, category] if suite.same_question is SameQuestion.apart else [])]
    return hashlib.sha256(json.dumps(words, ensure_ascii=False).encode()).hexdigest()[:16]


def _joined(asked: Sequence[Asked], suite: RowsSuite) -> list[Asked]:
    """One for each name: rows of one question together, equal rows numbered, and an id of two questions refused."""
    groups: dict[str, list[Asked]] = {}
    for one in asked:
        groups.setdefault(one.name, []).append(one)
    if suite.same_question is SameQuestion.together:
        return [_together(group) for group in groups.values()]
    for group in groups.values():
        if suite.id and len(group) > 1:
            got = f"{suite.id} {group[1].name!r}, which {group[0].place} has too"
            hint = "evaluation.same_question=together for one question with several references, or evaluation.id=''"
            raise DataError(problem(group[1].place, got, "one row for each", hint))
    return [
        replace(one, name=f"{name}#{number}" if number > 1 else name)
        for name, group in groups.items()
        for number, one in enumerate(group, start=1)
    ]


def _together(group: Sequence[Asked]) -> Asked:
    first = group[0]
    for other in group:
        if (other.message, other.category, other.language) != (first.message, first.category, first.language):
            got = f"another question or category under the id {first.name!r} of {first.place}"
            raise DataError(problem(other.place, got, "rows of one id that differ in their references", "evaluation.id=''"))
    references = dict.fromkeys(text for one in group for text in one.references)
    return replace(first, references=tuple(sorted(references)))


def _item(one: Asked, source: SourceConfig, prompts: Mapping[str, str]) -> Item:
    facts: dict[str, Any] = {"judge_prompt": prompts[one.category]} if one.category in prompts else {}
    if len(one.references) > 1:
        facts["references"] = list(one.references)
    reference = one.references[0] if one.references else ""
    return Item(f"{source.name}:{one.name}", (one.message,), reference, one.category, one.language, facts=facts)


def _rows(source: SourceConfig, root: Path) -> Iterator[Row]:
    for row in sources.rows(source, root):
        if isinstance(row, Dropped):
            raise DataError(problem(row.place, f"{row.reason} ({row.detail})", "a row of the suite", "repairing the file"))
        yield row


def _references(row: Row, path: str) -> tuple[str, ...]:
    if not path:
        return ()
    value = _at(row, path, "reference")
    parts = value if isinstance(value, list) else [value]
    return tuple(text for text in (_plain(row, part, path) for part in parts) if text)


def _optional(row: Row, path: str, option: str) -> str:
    return _text(row, path, option) if path else ""


def _text(row: Row, path: str, option: str) -> str:
    return _plain(row, _at(row, path, option), path)


def _plain(row: Row, value: Any, path: str) -> str:
    """A text without outer white space; a number as it is written, null as nothing."""
    if isinstance(value, str):
        return value.strip()
    if value is None or isinstance(value, int | float):
        return "" if value is None else str(value)
    raise DataError(problem(row.place, f"{type(value).__name__} at {path!r}", "a text or a number", f"a path into it: {path}.0"))


def _at(row: Row, path: str, option: str) -> Any:
    value: Any = row.fields
    for part in path.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            where = f"no {path!r} (it has {', '.join(map(repr, row.fields))})"
            expected = f"the field of evaluation.{option}" if option else "class and prompt, as evaluation.judge_prompts has them"
            raise DataError(problem(row.place, where, expected, f"evaluation.{option or 'judge_prompts'}=NAME"))
    return value
