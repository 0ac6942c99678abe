"""What the suites of published benchmarks have in common: their rows, which of them are asked, prompts, and accuracies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from babeltune.data import sources
from babeltune.errors import DataError, problem
from babeltune.evaluation import metrics
from babeltune.options import RunConfig
from babeltune.records import Dropped, Item, Message, Reply, Row, Score

Rows = dict[str, list[Row]]
"""File name, without its endings, to its rows in their order."""


def rows(config: RunConfig) -> Rows:
    """Every row of the suite's sources, by file. Raises DataError at the first that is broken: a part of a benchmark is another."""
    found: Rows = {}
    for source in config.evaluation.sources.values():
        for row in sources.rows(source, Path(config.paths.data)):
            if isinstance(row, Dropped):
                got = f"{row.reason} ({row.detail})"
                raise DataError(problem(row.place, got, "the row as it was published", "fetching the file again"))
            found.setdefault(_file(row.place), []).append(row)
    return found


def field(row: Row, *names: str) -> Any:
    """The first of these fields that a row has. Raises DataError when it has none."""
    for name in names:
        if name in row.fields:
            return row.fields[name]
    got, expected = f"keys {', '.join(map(repr, row.fields))}", " or ".join(map(repr, names))
    raise DataError(problem(row.place, got, expected, "evaluation.sources.NAME.rename={THEIRS:OURS} or another file"))


def some(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many items, in their order; which ones depends on what they are called alone."""
    if len(items) <= most:
        return list(items)
    kept = set(sorted((item.id for item in items), key=_rank)[:most])
    return [item for item in items if item.id in kept]


def bare(id: str, text: str, reference: str, category: str, **facts: Any) -> Item:
    """A question that the model continues as it stands, in no template.

    Facts that are not part of the question: `lead`, a text before everything, and `shots`, worked examples before the question.
    """
    return Item(id, (Message("text", text),), reference, category, "en", facts=facts)


def prompts(item: Item) -> Iterator[tuple[Message, ...]]:
    """The ways to put an item, the longest first: with all its worked examples, then each time without the last of them.

    >>> [messages[0].text for messages in prompts(bare("i", "3?", "4", "sums", lead="Count. ", shots=("1? 2. ", "2? 3. ")))]
    ['Count. 1? 2. 2? 3. 3?', 'Count. 1? 2. 3?', 'Count. 3?']
    """
    lead, shots = item.facts.get("lead", ""), item.facts.get("shots", ())
    *before, question = item.messages
    for count in range(len(shots), -1, -1):
        text = lead + "".join(shots[:count]) + question.text
        yield (*before, Message(question.role, text, question.input))


def begins_with(item: Item, reply: Reply) -> bool:
    """Whether a reply begins with the reference, letter for letter, after white space: InstructEval's rule."""
    return reply.text.strip().startswith(item.reference)


def accuracies(
    suite: str, right: Mapping[str, bool | None], categories: Mapping[str, str], rule: str, *, over_categories: bool = False
) -> list[Score]:
    """The share that is right in percent: over all items, or the mean of the categories' shares; then of each category.

    Both mappings have the items' ids as keys. None is an item without a reply: it is counted, and in no mean.
    """
    values = {item: None if is_right is None else 100.0 * is_right for item, is_right in right.items()}
    parts: dict[str, dict[str, float | None]] = {}
    for item, value in values.items():
        parts.setdefault(categories[item], {})[item] = value
    whole = metrics.score(f"{suite}/accuracy", values, f"{rule}|mean:{'categories' if over_categories else 'items'}")
    if len(parts) == 1:
        return [whole]
    found = [metrics.score(f"{suite}/accuracy_{name}", part, f"{rule}|mean:items") for name, part in sorted(parts.items())]
    return [replace(whole, value=_mean(found)) if over_categories else whole, *found]


def of_replies(
    config: RunConfig,
    items: Sequence[Item],
    replies: Sequence[Reply],
    is_right: Callable[[Item, Reply], bool],
    rule: str,
    *,
    over_categories: bool = False,
) -> list[Score]:
    """The accuracies of one reply to each item, as far as there are replies."""
    said = {reply.item: reply for reply in replies}
    right = {item.id: is_right(item, said[item.id]) if item.id in said else None for item in items}
    categories = {item.id: item.category for item in items}
    return accuracies(config.evaluation.name, right, categories, rule, over_categories=over_categories)


def lettered(options: Sequence[str]) -> str:
    """Options below each other, from A on."""
    return "".join(f"\n{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))


LETTERS = "ABCDEFGH"


def _file(place: str) -> str:
    """The file of a row's place: its name up to the first dot."""
    return Path(place.rpartition(":")[0]).name.partition(".")[0]


def _rank(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _mean(scores: Sequence[Score]) -> float | None:
    values = [score.value for score in scores if score.value is not None]
    return sum(values) / len(values) if values else None
