"""A table as values, and its text in four formats."""

from __future__ import annotations

import csv
import io
import unicodedata
from dataclasses import dataclass

from babeltune.errors import ConfigError, nearest, problem


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def number(value: float | None, sign: bool = False, digits: int = 1) -> str:
    """A figure for a cell; nothing for no figure, and no sign before a rounded zero.

    >>> number(61.25), number(-0.5, sign=True), number(None), number(2.04)
    ('61.2', '−0.5', '', '2.0')
    """
    if value is None:
        return ""
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def render(table: Table, form: str = "text") -> str:
    """The table as `text`, `md`, `latex` (booktabs) or `csv`."""
    forms = {"text": _text, "md": _markdown, "latex": _latex, "csv": _csv}
    if form not in forms:
        raise ConfigError(problem("FORMAT", repr(form), f"one of {', '.join(forms)}", nearest(form, forms, 1)))
    return forms[form](table)


def _text(table: Table) -> str:
    widths = [max(_width(line[i]) for line in (table.columns, *table.rows)) for i in range(len(table.columns))]

    def line(cells: tuple[str, ...]) -> str:
        return "  ".join(_padded(cell, width, i == 0) for i, (cell, width) in enumerate(zip(cells, widths, strict=True))).rstrip()

    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    body = [table.title, rule, line(table.columns), rule, *map(line, table.rows), rule]
    return "\n".join([*body, *table.notes])


def _padded(text: str, width: int, left: bool) -> str:
    space = " " * (width - _width(text))
    return text + space if left else space + text


def _width(text: str) -> int:
    """Columns on a terminal: Chinese characters take two, combining marks none."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text if not unicodedata.combining(letter))


def _markdown(table: Table) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    rule = "|" + "|".join(["---", *("---:" for _ in table.columns[1:])]) + "|"
    notes = [f"- {note}" for note in table.notes]
    return "\n".join([f"**{table.title}**", "", line(table.columns), rule, *map(line, table.rows), "", *notes]).rstrip()


def _latex(table: Table) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return " & ".join(_escaped(cell) for cell in cells) + r" \\"

    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escaped(table.title)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
            r"\toprule",
            line(table.columns),
            r"\midrule",
            *map(line, table.rows),
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par{{\footnotesize {_escaped(note)}}}" for note in table.notes),
            r"\end{table}",
        ]
    )


def _escaped(text: str) -> str:
    signs = {
        "\\": r"\textbackslash{}",
        "−": "$-$",
        "Δ": r"$\Delta$",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "…": r"\dots{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "\n": " ",
    }
    return "".join(signs.get(letter, f"\\{letter}" if letter in "&%$#_{}" else letter) for letter in text)


def _csv(table: Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(tuple(cell.replace("−", "-") for cell in row) for row in table.rows)
    return out.getvalue().rstrip("\n")
