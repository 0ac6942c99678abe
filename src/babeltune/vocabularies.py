"""What an extended vocabulary brings, as a table."""

from __future__ import annotations

from babeltune.results import RunResult
from babeltune.tables import Table, render

COLUMNS = ("language", "lines", "tokens a line", "then", "less", "characters a token", "then", "measured on")


def text(result: RunResult) -> str:
    return render(table(result))


def table(result: RunResult) -> Table:
    """Tokens and characters of each language before and after, and how many pieces made the difference."""
    facts = result.training["vocabulary"]
    rows = []
    for language, found in facts["languages"].items():
        (before, after), (short, long) = found["tokens_per_line"], found["characters_per_token"]
        less = f"{(before - after) / before:.1%}"
        cells = (f"{found['lines']:,}", f"{before:.1f}", f"{after:.1f}", less, f"{short:.2f}", f"{long:.2f}", found["measured_on"])
        rows.append((language, *cells))
    notes = [f"{facts['learned']:,} pieces learned, {facts['overlapping']:,} of them there already, {facts['added']:,} added"]
    notes += [facts["note"]] if facts["note"] else []
    title = f"{result.cell}: {facts['old_size']:,} → {facts['size']:,} pieces"
    return Table(title, COLUMNS, tuple(rows), tuple(notes))
