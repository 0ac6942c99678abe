"""`babeltune report`: everything there is to see of a set of cells in one HTML page that needs nothing else.

The page loads nothing, from nowhere; its figures are SVG whose words the reader's own fonts draw, and everything that data or a
model said is text, whatever it looks like.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from babeltune import comparison, figures, ledgers, tables, vocabularies
from babeltune.errors import ConfigError, nearest, problem
from babeltune.figures import Chart, Drawn
from babeltune.figures.lettering import Form
from babeltune.reporting import answers, charts, provenance
from babeltune.reporting.gathering import Gathered, Shown, gather
from babeltune.results import RunResult

SAMPLES = 3
"""Rows shown of each reason of a cleaning step."""
LONGEST = 600
"""Characters of such a row."""
DRAWN = ("scores", "languages", "ablation", "vocabulary", "losses")
"""Figures of a page, as far as its cells make them; those of the sources and of the suite come in their own places."""


def page(asked: Sequence[str], outputs: Path) -> str:
    """The report on a grid, or on folders of cells.

    Raises ConfigError for a word that names neither, EvalError when cells were judged in different ways.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    cells = gather(asked, outputs)
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FileSystemLoader(Path(__file__).parent),
    )
    return environment.get_template("page.html").render(_content(cells))


def figure(name: str, asked: Sequence[str], outputs: Path, form: str) -> Drawn:
    """One figure of a grid, or of folders of cells, as `svg` or `png`. Raises ConfigError for a figure that there is not."""
    if name not in charts.CHARTS:
        raise ConfigError(problem("figure", repr(name), f"one of {', '.join(charts.CHARTS)}", nearest(name, charts.CHARTS, 1)))
    forms: dict[str, Form] = {"svg": "svg", "png": "png"}
    if form not in forms:
        raise ConfigError(problem("--output", f"a file that ends in .{form}", "one that ends in .svg or .png", f"{name}.svg"))
    return figures.draw(charts.chart(name, gather(asked, outputs)), forms[form])


def _content(cells: Gathered) -> dict[str, Any]:
    results = [cell.result for cell in cells.cells if cell.result is not None]
    return {
        "title": cells.title,
        "cells": [_cell(cell) for cell in cells.cells],
        "finished": len(results),
        "labels": list(dict.fromkeys(label for result in results for label in result.labels)),
        "table": _html(comparison.table_of(cells.tree, cells.rows)),
        "figures": _figures([(name, charts.CHARTS[name][0](cells)) for name in DRAWN], "f"),
        "sources": _figures([("source", charts.by_source(cell)) for cell in cells.firsts], "s"),
        "suite": _figures([("categories", charts.categories(cells)), ("lengths", charts.lengths(cells))], "q"),
        "is_drawable": figures.is_available(),
        "mixes": list(_mixes(cells)),
        "answers": answers.sampled(cells),
        "differences": _html(provenance.differences(cells)),
        "digests": _html(provenance.digests(cells)),
        "versions": _html(provenance.versions(cells)),
        "commands": provenance.commands(cells),
        "again": _again(cells),
    }


def _again(cells: Gathered) -> str:
    outputs = [] if str(cells.outputs) == "outputs" else ["--outputs", str(cells.outputs)]
    return shlex.join(["babeltune", "report", *cells.asked, *outputs, "--output", "report.html"])


def _html(table: tables.Table | None) -> Any:
    """A table as HTML that is escaped already, its notes below it, where a narrow screen shows them whole."""
    from markupsafe import Markup, escape

    if table is None:
        return None
    notes = [Markup('<p class="note">{}</p>').format(escape(note)) for note in table.notes]
    return Markup("\n").join([Markup(tables.render(replace(table, notes=()), "html")), *notes])  # noqa: S704 escaped by tables


def _figures(found: Sequence[tuple[str, Chart | None]], prefix: str) -> list[dict[str, Any]]:
    """The charts that there are, drawn; none of them where matplotlib is not installed, which the page says."""
    from markupsafe import Markup

    if not figures.is_available():
        return []
    drawn = []
    for place, (name, chart) in enumerate(found):
        if chart is not None:
            svg = figures.inline(figures.draw(chart).data, f"{prefix}{place}", chart.title)
            drawn.append({"name": name, "title": chart.title, "svg": Markup(svg)})  # noqa: S704 matplotlib escapes every word
    return drawn


def _cell(cell: Shown) -> dict[str, Any]:
    url = cell.result.tracking.get("url") if cell.result is not None else None
    is_address = isinstance(url, str) and url.startswith(("https://", "http://"))
    return {
        "label": cell.label,
        "seed": cell.seed,
        "state": cell.state,
        "folder": str(cell.folder),
        "url": url if is_address else None,
    }


def _mixes(cells: Gathered) -> Iterator[dict[str, Any]]:
    """What went into each row, of the cell that speaks for it."""
    for cell in cells.firsts:
        result = cell.result
        assert result is not None
        held = result.ledger.get("contamination")
        found, note = _ledger(result)
        if "vocabulary" in result.training:
            found.append(vocabularies.table(result))
        if found or note:
            yield {
                "label": cell.label,
                "seed": cell.seed,
                "note": note,
                "tables": [_html(table) for table in found],
                "contamination": "" if held is None else ledgers.contamination(held),
                "samples": list(_samples(result.ledger.get("cleaning", ()))),
            }


def _ledger(result: RunResult) -> tuple[list[tables.Table], str]:
    """The tables of a ledger; or why there are none, where it was written before they were."""
    if not result.ledger.get("rows"):
        return [], ""
    try:
        return ledgers.tables(result), ""
    except KeyError as error:
        return [], f"Its ledger was written by another version of babeltune: it has no {error}."


def _samples(reports: Sequence[Any]) -> Iterator[dict[str, Any]]:
    for report in reports:
        for reason, rows in report["samples"].items():
            for sample in itertools.islice(rows, SAMPLES):
                yield {
                    "step": report["name"],
                    "reason": reason,
                    "place": sample["place"],
                    "detail": sample["detail"],
                    "before": _cut(sample["before"]),
                    "after": None if sample["after"] is None else _cut(sample["after"]),
                }


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"
