"""A table as values, and its text in five formats."""

from __future__ import annotations

import csv
import html
import io
import itertools
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from babeltune.errors import ConfigError, nearest, problem

Place = tuple[int, int]
"""Row and column of a cell, both from 0; the headings are no row."""


@dataclass(frozen=True, slots=True)
class Link:
    """Where a reader can go on from a cell."""

    text: str
    """Said beside the cell; empty for a link that the cell's own text is."""
    target: str
    """An address, or a path relative to where the table is kept."""


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    num_words: int = 1
    """How many columns, from the left, are words and not figures."""
    spans: tuple[str, ...] = ()
    """What stands over each column: neighbours under the same words share them. Empty for nothing over any."""
    marks: Mapping[Place, str] = field(default_factory=dict)
    """A cell's footnote: what it is called in the notes."""
    links: Mapping[Place, tuple[Link, ...]] = field(default_factory=dict)
    """Shown where a format has links: in md and html."""


def number(value: float | None, sign: bool = False, digits: int = 1) -> str:
    """A figure for a cell; nothing for no figure, and no sign before a rounded zero.

    >>> number(61.25), number(-0.5, sign=True), number(None), number(2.04)
    ('61.2', '−0.5', '', '2.0')
    """
    if value is None:
        return ""
    text = f"{value:+,.{digits}f}" if sign else f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def render(table: Table, form: str = "text") -> str:
    """The table as `text`, `md`, `latex` (booktabs), `csv` (no notes) or `html` (a fragment that needs nothing else)."""
    forms = {"text": _text, "md": _markdown, "latex": _latex, "csv": _csv, "html": _html}
    if form not in forms:
        raise ConfigError(problem("FORMAT", repr(form), f"one of {', '.join(forms)}", nearest(form, forms, 1)))
    return forms[form](table)


def _spanned(table: Table) -> list[tuple[str, int, int]]:
    """Neighbouring columns under the same words: the words, the first column, and the one after the last."""
    found, start = [], 0
    for words, group in itertools.groupby(table.spans):
        end = start + len(list(group))
        found.append((words, start, end))
        start = end
    return found


def _headings(table: Table) -> tuple[str, ...]:
    """The columns in one line, each with what stands over it."""
    if not table.spans:
        return table.columns
    return tuple(f"{over}: {own}" if over else own for over, own in zip(table.spans, table.columns, strict=True))


def _text(table: Table) -> str:
    room = {j: max(len(mark) + 3 for (_, other), mark in table.marks.items() if other == j) for _, j in table.marks}
    rows = [
        tuple(_set(text, f" [{table.marks[i, j]}]" if (i, j) in table.marks else "", room.get(j, 0)) for j, text in enumerate(row))
        for i, row in enumerate(table.rows)
    ]
    widths = [max(_width(line[i]) for line in (table.columns, *rows)) for i in range(len(table.columns))]
    for words, start, end in _spanned(table):
        missing = _width(words) - sum(widths[start:end]) - 2 * (end - start - 1)
        widths[end - 1] += max(0, missing)

    def line(cells: tuple[str, ...]) -> str:
        return "  ".join(
            _padded(cell, width, i < table.num_words) for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()

    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    over = [_over(table, widths)] if table.spans else []
    body = [table.title, rule, *over, line(table.columns), rule, *map(line, rows), rule]
    return "\n".join([*body, *table.notes])


def _set(text: str, mark: str, room: int) -> str:
    """A cell with its mark, in a column whose marks take this much room: figures stay under figures."""
    return f"{text}{mark:{room}}" if room else text


def _over(table: Table, widths: list[int]) -> str:
    """The line above the headings: each group's words at the right end of its columns, as the headings are."""
    parts = [_padded(words, sum(widths[a:b]) + 2 * (b - a - 1), left=False) for words, a, b in _spanned(table)]
    return "  ".join(parts).rstrip()


def _padded(text: str, width: int, left: bool) -> str:
    space = " " * (width - _width(text))
    return text + space if left else space + text


def _width(text: str) -> int:
    """Columns on a terminal: Chinese characters take two, combining marks none."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text if not unicodedata.combining(letter))


def _markdown(table: Table) -> str:
    def escaped(text: str) -> str:
        return text.replace("|", "\\|").replace("\n", " ")

    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cells) + " |"

    def cell(place: Place, text: str) -> str:
        said = escaped(text) + (f" \\[{table.marks[place]}\\]" if place in table.marks else "")
        for link in table.links.get(place, ()):
            target = link.target.replace(" ", "%20").replace("|", "%7C").replace("(", "%28").replace(")", "%29")
            said = f"{said} [{escaped(link.text)}]({target})" if link.text else f"[{said}]({target})"
        return said

    rule = "|" + "|".join("---" if place < table.num_words else "---:" for place in range(len(table.columns))) + "|"
    rows = [tuple(cell((i, j), text) for j, text in enumerate(row)) for i, row in enumerate(table.rows)]
    head = line(tuple(map(escaped, _headings(table))))
    notes = [f"- {note}" for note in table.notes]
    return "\n".join([f"**{table.title}**", "", head, rule, *map(line, rows), "", *notes]).rstrip()


def _latex(table: Table) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return " & ".join(cells) + r" \\"

    def cell(place: Place, text: str) -> str:
        mark = rf"\textsuperscript{{{_escaped(table.marks[place])}}}" if place in table.marks else ""
        return _escaped(text) + mark

    words, groups = table.num_words, _spanned(table)
    over = [" & ".join(rf"\multicolumn{{{b - a}}}{{c}}{{{_escaped(words)}}}" for words, a, b in groups) + r" \\"]
    over.append(" ".join(rf"\cmidrule(lr){{{a + 1}-{b}}}" for words, a, b in groups if words))
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escaped(table.title)}}}",
            rf"\begin{{tabular}}{{{'l' * words}{'r' * (len(table.columns) - words)}}}",
            r"\toprule",
            *(over if table.spans else ()),
            line(tuple(map(_escaped, table.columns))),
            r"\midrule",
            *(line(tuple(cell((i, j), text) for j, text in enumerate(row))) for i, row in enumerate(table.rows)),
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
        "±": r"$\pm$",
        "×": r"$\times$",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "…": r"\dots{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "[": "{[}",
        "]": "{]}",
        "\n": " ",
    }
    return "".join(signs.get(letter, f"\\{letter}" if letter in "&%$#_{}" else letter) for letter in text)


def _csv(table: Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_headings(table))
    writer.writerows(tuple(map(_plain, row)) for row in table.rows)
    return out.getvalue().rstrip("\n")


def _plain(text: str) -> str:
    """A figure as programs read it."""
    ascii_only = text.replace("−", "-")
    return ascii_only.replace(",", "") if re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?", ascii_only) else ascii_only


def _html(table: Table) -> str:
    """One `<table>` with its notes in the foot; every word of it escaped, its looks in attributes."""
    said = html.escape

    def style(place: int) -> str:
        return f' style="text-align:{"left" if place < table.num_words else "right"};padding:.15em .6em"'

    def cell(place: Place, text: str) -> str:
        words = said(text)
        for link in table.links.get(place, ()):
            anchor = f'<a href="{said(link.target)}">{said(link.text) or words}</a>'
            words = f"{words} {anchor}" if link.text else anchor
        mark = f"<sup>{said(table.marks[place])}</sup>" if place in table.marks else ""
        return f"<td{style(place[1])}>{words}{mark}</td>"

    over = "".join(f'<th colspan="{b - a}" style="padding:.15em .6em">{said(words)}</th>' for words, a, b in _spanned(table))
    head = "".join(f'<th scope="col"{style(i)}>{said(name)}</th>' for i, name in enumerate(table.columns))
    rows = ["".join(cell((i, j), text) for j, text in enumerate(row)) for i, row in enumerate(table.rows)]
    notes = [f'<tr><td colspan="{len(table.columns)}"><small>{said(note)}</small></td></tr>' for note in table.notes]
    return "\n".join(
        [
            '<table style="border-collapse:collapse">',
            f"<caption>{said(table.title)}</caption>",
            "<thead>",
            *([f"<tr>{over}</tr>"] if over else []),
            f"<tr>{head}</tr>",
            "</thead>",
            "<tbody>",
            *(f"<tr>{row}</tr>" for row in rows),
            "</tbody>",
            *(["<tfoot>", *notes, "</tfoot>"] if notes else []),
            "</table>",
        ]
    )
