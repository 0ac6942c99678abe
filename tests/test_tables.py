"""A table's text in each format, compared letter by letter."""

from __future__ import annotations

import csv
import io
import re

import pytest

from babeltune.errors import ConfigError
from babeltune.tables import Table, number, render

TABLE = Table(
    title="Hà Nội & 北京",
    columns=("mix", "exact_match", "Δ"),
    rows=(("中文 (zh)", "61.2", "baseline"), ("tiếng Việt", "7.0", "−54.2"), ("a|b_c", "—", "")),
    notes=("toy/exact_match: 100 % of {n} items; p < 0.05",),
)

TEXT = """\
Hà Nội & 北京
─────────────────────────────────
mix         exact_match         Δ
─────────────────────────────────
中文 (zh)          61.2  baseline
tiếng Việt          7.0     −54.2
a|b_c                 —
─────────────────────────────────
toy/exact_match: 100 % of {n} items; p < 0.05"""

MARKDOWN = """\
**Hà Nội & 北京**

| mix | exact_match | Δ |
|---|---:|---:|
| 中文 (zh) | 61.2 | baseline |
| tiếng Việt | 7.0 | −54.2 |
| a\\|b_c | — |  |

- toy/exact_match: 100 % of {n} items; p < 0.05"""

LATEX = r"""\begin{table}
\centering
\caption{Hà Nội \& 北京}
\begin{tabular}{lrr}
\toprule
mix & exact\_match & $\Delta$ \\
\midrule
中文 (zh) & 61.2 & baseline \\
tiếng Việt & 7.0 & $-$54.2 \\
a\textbar{}b\_c & — &  \\
\bottomrule
\end{tabular}
\par{\footnotesize toy/exact\_match: 100 \% of \{n\} items; p \textless{} 0.05}
\end{table}"""

CSV = """\
mix,exact_match,Δ
中文 (zh),61.2,baseline
tiếng Việt,7.0,-54.2
a|b_c,—,"""


@pytest.mark.parametrize(("form", "golden"), [("text", TEXT), ("md", MARKDOWN), ("latex", LATEX), ("csv", CSV)])
def test_a_table_reads_as_it_should(form: str, golden: str) -> None:
    assert render(TABLE, form) == golden


def test_combining_marks_take_no_room() -> None:
    decomposed = "tie\u0302\u0301ng"
    lines = render(Table("t", ("mix", "n"), ((decomposed, "1"), ("中中中", "2")))).splitlines()
    assert lines[4] == f"{decomposed}   1"
    assert lines[5] == "中中中  2"


def test_every_sign_that_means_something_to_latex_is_escaped() -> None:
    said = render(Table("\\&%$#_{}~^<>|", ("mix",), ()), "latex").splitlines()[2]
    inner = said.removeprefix(r"\caption{").removesuffix("}")
    assert not re.sub(r"\\text\w+\{\}|\\[&%$#_{}]", "", inner)


def test_a_line_break_stays_within_its_cell() -> None:
    table = Table("t", ("mix",), (("a\nb",),))
    assert "| a b |" in render(table, "md")
    assert r"a b \\" in render(table, "latex")
    assert list(csv.reader(io.StringIO(render(table, "csv")))) == [["mix"], ["a\nb"]]


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        render(TABLE, "latx")
    assert str(caught.value) == "FORMAT: got 'latx'; expected one of text, md, latex, csv; try latex"


@pytest.mark.parametrize(
    ("value", "sign", "digits", "text"),
    [
        (61.25, False, 1, "61.2"),
        (-0.5, True, 1, "−0.5"),
        (0.5, True, 1, "+0.5"),
        (None, True, 1, ""),
        (-0.04, True, 1, "0.0"),
        (0.6701, False, 3, "0.670"),
    ],
)
def test_a_figure_has_its_sign_and_digits(value: float | None, sign: bool, digits: int, text: str) -> None:
    assert number(value, sign=sign, digits=digits) == text
