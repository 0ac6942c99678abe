"""What went into a mix, as tables: rows and tokens by source and language, what each cleaning step did, and samples of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from babeltune.results import RunResult
from babeltune.tables import Table, render

COLUMNS = ("source", "language", "asked", "found", "dropped", "held out", "usable", "taken", "tokens", "share", "to learn")

SHOWN = 3
"""So many pairs of a row and the evaluation item in it."""


def text(result: RunResult) -> str:
    """Everything that preparing a mix has to say."""
    held = result.ledger.get("contamination")
    found = [contamination(held)] if held is not None else []
    return "\n\n".join([*map(render, tables(result)), *found, *_samples(result.ledger["cleaning"])])


def tables(result: RunResult) -> list[Table]:
    """What is in a mix, and what each cleaning step did where there were any."""
    ledger = result.ledger
    name, title = result.config["data"]["name"], result.config["data"]["title"]
    rows = _rows(f"{name}: {title}" if title else name, ledger)
    return [rows, _steps(ledger["cleaning"])] if ledger["cleaning"] else [rows]


def _rows(title: str, ledger: Mapping[str, Any]) -> Table:
    rows = []
    for row in ledger["rows"]:
        numbers = [row["found"], sum(row["dropped"].values()), row["heldout"], row["usable"], row["taken"], row["tokens"]]
        counts = (*(f"{number:,}" for number in numbers), f"{row['token_share']:.1%}", f"{row['target_tokens']:,}")
        rows.append((row["source"], row["language"], row["asked"], *counts))
    if len(rows) > 1:
        keys = ("found", "heldout", "usable", "taken", "tokens", "target_tokens")
        total = {key: sum(row[key] for row in ledger["rows"]) for key in keys}
        total["dropped"] = sum(sum(row["dropped"].values()) for row in ledger["rows"])
        order = ("found", "dropped", "heldout", "usable", "taken", "tokens")
        rows.append(("in all", "", "", *(f"{total[key]:,}" for key in order), "100.0%", f"{total['target_tokens']:,}"))
    reasons: dict[str, int] = {}
    for row in ledger["rows"]:
        for reason, count in row["dropped"].items():
            reasons[reason] = reasons.get(reason, 0) + count
    notes = [f"dropped: {_counts(reasons)}"] if reasons else []
    notes += list(_cuts(ledger["rows"]))
    notes += [f"stand-in: {words}" for words in ledger["standins"]]
    return Table(title, COLUMNS, tuple(rows), tuple(notes))


def _cuts(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What `data.max_tokens` cost each source."""
    for row in rows:
        if row["cut_answers"] or row["dropped_turns"]:
            cost = f"{row['cut_answers']:,} answers cut, {row['dropped_turns']:,} turns left out"
            yield f"{row['source']} ({row['language']}), longer than data.max_tokens: {cost}"


def _steps(reports: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    notes = []
    for report in reports:
        of = report["source"] or "the mix"
        counts = tuple(f"{report[key]:,}" for key in ("seen", "changed", "kept"))
        rows.append((report["name"], of, *counts, _counts(report["dropped"])))
        notes += [f"{report['name']} ({of}), {fact}: {_fact(value)}" for fact, value in report["facts"].items()]
    return Table("Cleaning, step by step", ("step", "of", "seen", "changed", "kept", "dropped"), tuple(rows), tuple(notes))


def contamination(report: Mapping[str, Any]) -> str:
    """What of the evaluation is in the mix."""
    items = sum(counts["items"] for counts in report["suites"].values())
    lines = [report["label"] or f"none of {items:,} evaluation items is in the mix"]
    for suite, counts in report["suites"].items():
        if counts["found"]:
            lines.append(f"  {suite}: {counts['found']:,} of {counts['items']:,} items")
    for source, counts in report["sources"].items():
        if counts["hold"]:
            lines.append(f"  {source}: {counts['hold']:,} of {counts['rows']:,} rows hold one")
    lines += [f"  {sample['place']} has {sample['item']} of {sample['suite']}" for sample in report["samples"][:SHOWN]]
    return "\n".join(lines)


def _samples(reports: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for report in reports:
        for reason, rows in report["samples"].items():
            for sample in rows:
                after = "" if sample["after"] is None else f"\n  after   {_line(sample['after'])}"
                detail = f" ({sample['detail']})" if sample["detail"] else ""
                yield f"{report['name']}, {reason}{detail}: {sample['place']}\n  before  {_line(sample['before'])}{after}"


def _line(words: str) -> str:
    return words.replace("\n", "\n          ")


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_fact(part)}" for key, part in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
