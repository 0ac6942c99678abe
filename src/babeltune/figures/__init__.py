"""Charts as values, and the same charts as SVG or PNG: the same bytes each time. Needs the extra `plots` (matplotlib).

An SVG keeps its words as text, so that the reader's own fonts draw them, and is laid out with the font that matplotlib brings: its
bytes do not depend on the machine's fonts. A PNG is drawn with the fonts that are there; a word that none of them can write is
replaced by a number, and `Drawn.notes` says which.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, assert_never
from xml.sax.saxutils import escape

from babeltune.errors import ConfigError, problem
from babeltune.figures.lettering import CJK_FONTS, OWN_FONT, Form, Words, fonts_for, writer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#24292f"
"""Words, axes and ticks; in a page the reader's own colour."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Told apart by the colour-blind (Okabe and Ito 2008), and seen on white as on black."""
STROKES = ("-", "--", ":", "-.")
MARKS = ("o", "s", "^", "D", "v", "P")
WIDTH_INCHES = 5.4
"""Of every chart: readable on a phone, where it is shrunk to about four fifths."""


class Estimate(NamedTuple):
    """A value with the ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Compared:
    """Rows side by side in each group. `estimates` is rows by groups, None where there is nothing."""

    title: str
    unit: str
    groups: tuple[str, ...]
    rows: tuple[str, ...]
    estimates: tuple[tuple[Estimate | None, ...], ...]
    mark: Literal["dot", "bar"] = "dot"


@dataclass(frozen=True, slots=True)
class Line:
    label: str
    """Lines of one label share their look, and stand in the legend once."""
    x: tuple[float, ...]
    estimates: tuple[Estimate, ...]
    """At each x. Intervals are drawn where they are wider than nothing."""


@dataclass(frozen=True, slots=True)
class Curves:
    title: str
    across: str
    """What x is."""
    unit: str
    lines: tuple[Line, ...]
    ticks: tuple[str, ...] = ()
    """What x = 0, 1, 2, ... is called; empty where x is a number."""
    order: tuple[str, ...] = ()
    """Labels that looks are given to in turn, drawn or not: a row looks the same in the charts of one page."""


@dataclass(frozen=True, slots=True)
class Counts:
    title: str
    unit: str
    groups: tuple[str, ...]
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Spreads:
    """Distributions: rows by groups. A box is the middle half with the median, whiskers end at 5 and 95 %, a diamond is the
    mean."""

    title: str
    unit: str
    groups: tuple[str, ...]
    rows: tuple[str, ...]
    values: tuple[tuple[tuple[float, ...], ...], ...]


Chart = Compared | Curves | Counts | Spreads


@dataclass(frozen=True, slots=True)
class Drawn:
    data: bytes
    notes: tuple[str, ...] = ()
    """What a reader of the picture has to be told beside it."""


def is_available() -> bool:
    """Whether matplotlib is installed."""
    import importlib.util

    return importlib.util.find_spec("matplotlib") is not None


def draw(chart: Chart, form: Form = "svg", fonts: Sequence[str] = CJK_FONTS) -> Drawn:
    """The chart as a picture. `fonts` are asked, in this order, for what matplotlib's own font cannot write in a PNG.

    Raises ConfigError when matplotlib is not installed.
    """
    if not is_available():
        raise ConfigError(problem("figure", "no matplotlib", "the extra `plots`", "pip install '.[plots]'"))
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chosen = fonts_for(_said(chart), fonts) if form == "png" else (OWN_FONT,)
    words = Words(form, writer(chosen))
    looks: Any = _looks() | {"font.family": list(chosen)}
    with matplotlib.rc_context(looks):
        figure = Figure(figsize=(WIDTH_INCHES, _height(chart)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        _fill(chart, axes, figure, words)
        out = io.BytesIO()
        if form == "png":
            figure.savefig(out, format="png", dpi=200, facecolor="white", metadata={"Software": None})
        else:
            nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    return Drawn(words.restored(out.getvalue()), words.notes())


def inline(svg: bytes, name: str, label: str) -> str:
    """An SVG as an element of a page: ids begin with `name`, so that pictures do not take each other's parts; it is as wide as its
    place, and its ink is the page's. `label` is read out in its place."""
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r'<svg\b([^>]*?) (?:width|height)="[^"]*"', r"<svg\1", text)
    text = re.sub(r'<svg\b([^>]*?) (?:width|height)="[^"]*"', r"<svg\1", text)
    spoken = escape(label, {'"': "&quot;"})
    text = text.replace("<svg", f'<svg role="img" aria-label="{spoken}"', 1)
    return text.replace(INK, "currentColor").replace(f"'{OWN_FONT}'", f"'{OWN_FONT}', sans-serif").strip()


def _looks() -> dict[str, Any]:
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "babeltune",
        "text.parse_math": False,
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": INK,
        "grid.alpha": 0.15,
        "grid.linewidth": 0.6,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "legend.frameon": False,
        "lines.linewidth": 1.4,
        "axes.unicode_minus": True,
    }


def _height(chart: Chart) -> float:
    """Inches."""
    match chart:
        case Compared() | Spreads():
            entries = len(chart.groups) * (len(chart.rows) + 1)
            return min(60.0, 1.3 + 0.14 * entries + 0.19 * len(chart.rows))
        case Curves():
            return 3.0 + 0.19 * len({line.label for line in chart.lines})
        case Counts():
            return min(60.0, 1.0 + 0.24 * len(chart.groups))
        case _:
            assert_never(chart)


def _fill(chart: Chart, axes: Axes, figure: Figure, words: Words) -> None:
    axes.set_title(words(chart.title))
    match chart:
        case Compared():
            _compared(chart, axes, words)
        case Curves():
            _curves(chart, axes, words)
        case Counts():
            _counts(chart, axes, words)
        case Spreads():
            _spreads(chart, axes, words)
        case _:
            assert_never(chart)
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside lower left", ncols=1 if max(map(len, labels)) > 18 else 2)


def _offset(place: int, count: int) -> float:
    """Where the entry of a row stands within its group, which is 1 high."""
    return (place + 1) / (count + 1) - 0.5


def _compared(chart: Compared, axes: Axes, words: Words) -> None:
    for place, (row, estimates) in enumerate(zip(chart.rows, chart.estimates, strict=True)):
        known = [(group, found) for group, found in enumerate(estimates) if found is not None]
        y = [group + _offset(place, len(chart.rows)) for group, _ in known]
        values = [found.value for _, found in known]
        ends = [[found.value - found.low for _, found in known], [found.high - found.value for _, found in known]]
        colour, label = COLOURS[place % len(COLOURS)], words(row)
        if chart.mark == "bar":
            height = 0.9 / (len(chart.rows) + 1)
            axes.barh(y, values, height, color=colour, label=label, alpha=_shade(place))
            axes.errorbar(values, y, xerr=ends, fmt="none", ecolor=INK, elinewidth=0.8)
        else:
            axes.errorbar(
                values, y, xerr=ends, fmt=MARKS[place // len(COLOURS) % len(MARKS)], color=colour, markersize=4, label=label
            )
    axes.set_xlabel(words(chart.unit))
    _group_axis(axes, chart.groups, words)


def _shade(place: int) -> float:
    """Bars of one colour are told apart by how strong it is."""
    return (1.0, 0.6, 0.35)[place // len(COLOURS) % 3]


def _group_axis(axes: Axes, groups: Sequence[str], words: Words) -> None:
    """The groups from the top down."""
    axes.set_yticks(range(len(groups)), [_short(words(group)) for group in groups])
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def _short(text: str) -> str:
    return text if len(text) <= 28 else text[:27] + "…"


def _curves(chart: Curves, axes: Axes, words: Words) -> None:
    looks = {label: place for place, label in enumerate(dict.fromkeys((*chart.order, *(line.label for line in chart.lines))))}
    told: set[str] = set()
    for line in chart.lines:
        place = looks[line.label]
        values = [found.value for found in line.estimates]
        ends = [[found.value - found.low for found in line.estimates], [found.high - found.value for found in line.estimates]]
        axes.errorbar(
            line.x,
            values,
            yerr=ends if any(map(any, ends)) else None,
            color=COLOURS[place % len(COLOURS)],
            linestyle=STROKES[place // len(COLOURS) % len(STROKES)],
            marker="o" if len(values) == 1 or chart.ticks else "",
            markersize=4,
            label="_" if line.label in told else words(line.label),
        )
        told.add(line.label)
    if chart.ticks:
        axes.set_xticks(range(len(chart.ticks)), [_short(words(tick)) for tick in chart.ticks])
    axes.set_xlabel(words(chart.across))
    axes.set_ylabel(words(chart.unit))


def _counts(chart: Counts, axes: Axes, words: Words) -> None:
    bars = axes.barh(range(len(chart.groups)), chart.values, 0.7, color=COLOURS[0])
    axes.bar_label(bars, [f"{value:,}" for value in chart.values], padding=3)
    axes.margins(x=0.12)
    axes.set_xlabel(words(chart.unit))
    _group_axis(axes, chart.groups, words)


def _spreads(chart: Spreads, axes: Axes, words: Words) -> None:
    for place, (row, groups) in enumerate(zip(chart.rows, chart.values, strict=True)):
        known = [(group, values) for group, values in enumerate(groups) if values]
        if not known:
            continue
        colour = COLOURS[place % len(COLOURS)]
        drawn = axes.boxplot(
            [list(values) for _, values in known],
            positions=[group + _offset(place, len(chart.rows)) for group, _ in known],
            widths=0.9 / (len(chart.rows) + 1),
            orientation="horizontal",
            whis=(5, 95),
            showfliers=False,
            showmeans=True,
            manage_ticks=False,
            boxprops={"color": colour},
            whiskerprops={"color": colour},
            capprops={"color": colour},
            medianprops={"color": colour},
            meanprops={"marker": "D", "markersize": 3, "markerfacecolor": colour, "markeredgecolor": colour},
        )
        drawn["boxes"][0].set_label(words(row))
    axes.set_xlabel(words(chart.unit))
    axes.set_xlim(left=0)
    _group_axis(axes, chart.groups, words)


def _said(chart: Chart) -> Iterator[str]:
    """Every word of a chart."""
    yield from (chart.title, chart.unit)
    match chart:
        case Compared() | Spreads():
            yield from (*chart.groups, *chart.rows)
        case Curves():
            yield from (chart.across, *chart.ticks, *(line.label for line in chart.lines))
        case Counts():
            yield from chart.groups
        case _:
            assert_never(chart)
