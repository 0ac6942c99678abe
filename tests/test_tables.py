"""A table's text in each format, compared letter by letter."""

from __future__ import annotations

import csv
import io
import re

import pytest

from babeltune.errors import ConfigError
from babeltune.tables import Link, Table, number, render

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


HTML = """\
<table style="border-collapse:collapse">
<caption>Hà Nội &amp; 北京</caption>
<thead>
<tr><th scope="col"{l}>mix</th><th scope="col"{r}>exact_match</th><th scope="col"{r}>Δ</th></tr>
</thead>
<tbody>
<tr><td{l}>中文 (zh)</td><td{r}>61.2</td><td{r}>baseline</td></tr>
<tr><td{l}>tiếng Việt</td><td{r}>7.0</td><td{r}>−54.2</td></tr>
<tr><td{l}>a|b_c</td><td{r}>—</td><td{r}></td></tr>
</tbody>
<tfoot>
<tr><td colspan="3"><small>toy/exact_match: 100 % of {{n}} items; p &lt; 0.05</small></td></tr>
</tfoot>
</table>""".format(l=' style="text-align:left;padding:.15em .6em"', r=' style="text-align:right;padding:.15em .6em"')


@pytest.mark.parametrize(("form", "golden"), [("text", TEXT), ("md", MARKDOWN), ("latex", LATEX), ("csv", CSV), ("html", HTML)])
def test_a_table_reads_as_it_should(form: str, golden: str) -> None:
    assert render(TABLE, form) == golden


SPANNED = Table(
    title="t",
    columns=("model", "size", "paper", "ours", "paper"),
    rows=(("VICUNA", "13B", "64.5", "1,234.5", "1"), ("[x]", "7B", "3.0", "–", "2")),
    notes=("[1] printed 64.5",),
    num_words=2,
    spans=("", "", "a long name", "a long name", "Δ"),
    marks={(0, 2): "1"},
    links={(0, 3): (Link("", "a b/c(d)"), Link("W&B", "https://wandb.ai/x?a=1&b=2"))},
)


def test_columns_that_belong_together_stand_under_their_words() -> None:
    assert render(SPANNED).splitlines()[2:7] == [
        "                    a long name      Δ",
        "model   size     paper     ours  paper",
        "──────────────────────────────────────",
        "VICUNA  13B   64.5 [1]  1,234.5      1",
        "[x]     7B     3.0            –      2",
    ]
    assert "| model | size | a long name: paper | a long name: ours | Δ: paper |" in render(SPANNED, "md")
    assert "|---|---|---:|---:|---:|" in render(SPANNED, "md")
    said = render(SPANNED, "latex")
    assert r"\begin{tabular}{llrrr}" in said
    assert r"\multicolumn{2}{c}{} & \multicolumn{2}{c}{a long name} & \multicolumn{1}{c}{$\Delta$} \\" in said
    assert r"\cmidrule(lr){3-4} \cmidrule(lr){5-5}" in said
    assert '<th colspan="2" style="padding:.15em .6em">a long name</th>' in render(SPANNED, "html")


def test_a_footnote_is_marked_in_every_format_that_has_notes() -> None:
    assert "64.5 [1]" in render(SPANNED)
    assert r"| 64.5 \[1\] |" in render(SPANNED, "md")
    assert r"64.5\textsuperscript{1} &" in render(SPANNED, "latex")
    assert ">64.5<sup>1</sup></td>" in render(SPANNED, "html")
    assert ",64.5," in render(SPANNED, "csv")


def test_a_row_that_begins_with_a_bracket_is_no_argument_of_latex() -> None:
    assert "\n{[}x{]} & 7B" in render(SPANNED, "latex")


def test_links_are_in_md_and_html_and_nowhere_else() -> None:
    assert "[1,234.5](a%20b/c%28d%29) [W&B](https://wandb.ai/x?a=1&b=2)" in render(SPANNED, "md")
    anchors = '<a href="a b/c(d)">1,234.5</a> <a href="https://wandb.ai/x?a=1&amp;b=2">W&amp;B</a>'
    assert anchors in render(SPANNED, "html")
    for form in ("text", "latex", "csv"):
        assert "wandb" not in render(SPANNED, form)


def test_figures_in_csv_have_no_commas_within() -> None:
    assert list(csv.reader(io.StringIO(render(SPANNED, "csv"))))[1] == ["VICUNA", "13B", "64.5", "1234.5", "1"]


def test_every_word_is_escaped_in_html() -> None:
    bad = "<script>\"'&"
    table = Table(bad, (bad, "b"), ((bad, "c"),), (bad,), spans=(bad, ""), marks={(0, 0): bad}, links={(0, 1): (Link(bad, bad),)})
    said = render(table, "html")
    assert "<script>" not in said
    assert said.count("&lt;script&gt;&quot;&#x27;&amp;") == 8


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
    assert str(caught.value) == "FORMAT: got 'latx'; expected one of text, md, latex, csv, html; try latex"


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
