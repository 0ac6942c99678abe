"""What a judge is given in files: replies to compare with, and verdicts that were recorded elsewhere."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from babeltune.data import reading
from babeltune.errors import DataError, EvalError, problem
from babeltune.evaluation.judging import protocols
from babeltune.evaluation.judging.protocols import PARTS, Way
from babeltune.evaluation.judging.verdicts import Judgement, combine
from babeltune.judges import RecordedJudge
from babeltune.records import Dropped, Item, Row, Verdict

log = logging.getLogger(__name__)

QUESTION = "question\0"
LOST = ("refused", "truncated", "unparsable", "unreachable")


def replies(path: Path, items: Sequence[Item]) -> dict[str, str]:
    """Item to the reply that it is compared with. A row has `text`, and `item` or, as in FastChat's files, `question_id`.

    Raises EvalError for a row that is none, or when an item has no reply.
    """
    found: dict[str, str] = {}
    for row in _rows(path, "judge.against"):
        name, text = _name(row), row.fields.get("text")
        if name is None or not isinstance(text, str):
            raise EvalError(problem(row.place, "another kind of row", "an object with item and text", "a cell's replies.jsonl"))
        found[name] = text
    paired = {item.id: found[name] for item in items if (name := _known(item, found)) is not None}
    if len(paired) < len(items):
        got = f"{path} with replies to {len(paired):,} of {len(items):,} items"
        raise EvalError(problem("judge.against", got, "one to each", "another cell, judged on the same suite with as many items"))
    return paired


def recorded(judge: RecordedJudge, items: Sequence[Item]) -> dict[str, Verdict]:
    """The verdicts in `judge.file`. Several rows for an item are repeated judgements of it.

    A row has `item` (or `question_id`) and `value`, on the score's scale, with an `outcome` where the value is null; or `verdict`,
    a judge's own words, with the `part` that was asked: given or swapped, relevance or coherence. An item without a row is
    unreachable. Raises EvalError for any other row.
    """
    path = Path(judge.file).expanduser()
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in _rows(path, "judge.file"):
        name = _name(row)
        if name is None:
            raise _wrong(row)
        rows[name].append(row)
    way = Way(judge.protocol, digit=judge.digit)
    verdicts = {}
    used = set()
    for item in items:
        known = _known(item, rows)
        used.add(known)
        verdicts[item.id] = (
            Verdict(item.id, "unreachable", None, "", {"detail": f"not in {path.name}"})
            if known is None
            else _verdict(way, item, rows[known])
        )
    if others := len(rows.keys() - used):
        log.warning("%s: %d items that the suite does not ask", path, others)
    return verdicts


def _verdict(way: Way, item: Item, rows: Sequence[Row]) -> Verdict:
    if any("verdict" in row.fields for row in rows):
        said: dict[str, list[Judgement]] = defaultdict(list)
        for row in rows:
            part, text = row.fields.get("part", PARTS[way.protocol][0]), row.fields.get("verdict")
            if part not in PARTS[way.protocol] or not isinstance(text, str):
                raise _wrong(row)
            values = protocols.values(way, item.category, text)
            said[part].append(Judgement("unparsable", text=text) if values is None else Judgement("scored", values, text))
        return combine(way.protocol, item.id, said)
    numbers = [_number(row) for row in rows]
    known = [value for value in numbers if value is not None]
    text = "\n\n".join(str(row.fields["text"]) for row in rows if row.fields.get("text"))
    facts = {"judgements": {"": [None if value is None else [value] for value in numbers]}}
    if known:
        return Verdict(item.id, "scored", math.fsum(known) / len(known), text, facts)
    outcome = rows[0].fields.get("outcome", "unparsable")
    if outcome not in LOST:
        raise _wrong(rows[0])
    return Verdict(item.id, outcome, None, text, facts)


def _number(row: Row) -> float | None:
    value = row.fields.get("value", "missing")
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number and value is not None:
        raise _wrong(row)
    return None if value is None else float(value)


def _rows(path: Path, where: str) -> Iterator[Row]:
    try:
        for row in reading.read(path, "utf-8"):
            if isinstance(row, Dropped):
                raise EvalError(problem(row.place, row.reason, "a JSON object on each line", "repairing the line"))
            yield row
    except (OSError, DataError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise EvalError(
            problem(where, f"{path}, which cannot be read ({said})", "a file of JSON Lines", f"{where}=FILE")
        ) from error


def _name(row: Row) -> str | None:
    """What a row is about; a question's number is none of an item's names, so that the two are not taken for each other."""
    for key, mark in (("item", ""), ("question_id", QUESTION)):
        name = row.fields.get(key)
        if isinstance(name, str | int) and not isinstance(name, bool):
            return f"{mark}{name}"
    return None


def _known(item: Item, names: Mapping[str, Any]) -> str | None:
    """What the item is called among the names: by its id, or by its question's number, which an id has after its source."""
    question = item.facts.get("question_id", item.id.rpartition(":")[2])
    return next((one for one in (item.id, f"{QUESTION}{question}") if one in names), None)


def _wrong(row: Row) -> EvalError:
    expected = f"an object with item and value, or item and verdict; an outcome of {', '.join(LOST)}"
    return EvalError(problem(row.place, "another kind of row", expected, "value, or null, for each item"))
