"""Charts as pictures: the same bytes each time, words in every script, and no part of one taken by another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from babeltune import figures
from babeltune.errors import ConfigError
from babeltune.figures import Chart, Compared, Counts, Curves, Estimate, Line, Spreads, draw, inline
from babeltune.figures.lettering import OWN_FONT, Form, fonts_for, writer

GROUPS = ("开放问答", "dịch tiếng Việt", "a<b> & $c$ _d^")
CHARTS: dict[str, Chart] = {
    "dots": Compared("Điểm", "score", GROUPS, ("zh 中文", "vi"), ((Estimate(1, 0, 3), None, Estimate(2, 1, 3)),) * 2),
    "bars": Compared("Điểm", "score", GROUPS, ("zh 中文", "vi"), ((Estimate(1, 0, 3), None, Estimate(2, 1, 3)),) * 2, mark="bar"),
    "curves": Curves("损失", "step", "nats", (Line("中文", (1.0, 2.0), (Estimate(2, 2, 2), Estimate(1, 1, 1))),) * 2),
    "ticks": Curves("x", "text", "y", (Line("a", (0.0, 1.0), (Estimate(2, 1, 3), Estimate(4, 4, 5))),), ("0B", "一百亿")),
    "counts": Counts("Questions", "questions", GROUPS, (3, 1, 1_000)),
    "spreads": Spreads("Lengths", "characters", GROUPS, ("question", "答案"), (((1.0, 2.0, 9.0), (), (4.0,)), ((), (), ()))),
}


@pytest.mark.parametrize("form", ["svg", "png"])
@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_the_same_bytes_each_time(name: str, form: Form) -> None:
    assert draw(CHARTS[name], form) == draw(CHARTS[name], form)


def test_a_chart_is_the_same_bytes_in_another_process() -> None:
    code = "import sys; from babeltune.figures import *; sys.stdout.buffer.write(draw(Counts('t', 'n', ('a', '中'), (1, 2))).data)"
    made = [
        subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, check=True, env={"PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    ]
    assert made[0].stdout == made[1].stdout == draw(Counts("t", "n", ("a", "中"), (1, 2))).data


@pytest.mark.parametrize("name", CHARTS)
def test_an_svg_has_every_word_as_text_whatever_its_script(name: str) -> None:
    chart = CHARTS[name]
    tree = ElementTree.fromstring(draw(chart).data)
    said = ["".join(element.itertext()) for element in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert chart.title in said
    for words in getattr(chart, "groups", ()) + getattr(chart, "ticks", ()):
        assert words in said
    assert not any("Q001Q" in words for words in said)


def test_what_no_font_writes_is_a_number_in_a_png_and_the_notes_say_which() -> None:
    drawn = draw(CHARTS["counts"], "png", fonts=())
    assert drawn.notes == (
        "no font here writes these words; install one, as fonts-noto-cjk (Debian, Ubuntu), or draw an .svg",
        "[1] 开放问答",
    )
    assert drawn.data == draw(Counts("Questions", "questions", ("[1]", *GROUPS[1:]), (3, 1, 1_000)), "png", fonts=()).data
    assert draw(CHARTS["counts"], "svg", fonts=()).notes == ()


def test_a_font_that_has_the_letters_is_chosen_for_a_png(tmp_path: Path) -> None:
    from matplotlib import font_manager

    name = "Four Letters"
    path = tmp_path / "four.ttf"
    _font(path, name, "开放问答")
    font_manager.fontManager.addfont(path)
    try:
        assert fonts_for(["abc", "tiếng Việt"], [name]) == (OWN_FONT,)
        chosen = fonts_for(GROUPS, ["not installed", name])
        assert chosen == (OWN_FONT, name)
        assert all(writer(chosen)(words) for words in GROUPS)
        assert not writer(chosen)("别")
        drawn = draw(CHARTS["counts"], "png", fonts=[name])
        assert drawn.notes == ()
        assert drawn.data != draw(CHARTS["counts"], "png", fonts=()).data
    finally:
        font_manager.fontManager.ttflist = [font for font in font_manager.fontManager.ttflist if font.name != name]


def test_a_font_is_found_that_was_installed_after_matplotlib_made_its_list(tmp_path: Path) -> None:
    fonts = tmp_path / "share" / "fonts"
    fonts.mkdir(parents=True)
    _font(tmp_path / "four.ttf", "Four Letters", "开放问答")
    environment = os.environ | {"XDG_DATA_HOME": str(fonts.parent), "MPLCONFIGDIR": str(tmp_path / "mpl")}
    code = "from babeltune.figures.lettering import fonts_for; print(fonts_for(['开放问答'], ['Four Letters']))"

    def chosen() -> str:
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
        ).stdout.strip()

    assert chosen() == "('DejaVu Sans',)"
    (tmp_path / "four.ttf").replace(fonts / "four.ttf")
    assert chosen() == "('DejaVu Sans', 'Four Letters')"


def test_the_font_that_comes_with_matplotlib_writes_vietnamese() -> None:
    from fontTools.ttLib import TTFont
    from matplotlib import font_manager

    letters = "ăâđêôơưĂÂĐÊÔƠƯ" + "".join(chr(code) for code in range(0x1EA0, 0x1EFA))
    known = TTFont(font_manager.findfont(OWN_FONT)).getBestCmap()
    assert not [letter for letter in letters if ord(letter) not in known]
    assert writer((OWN_FONT,))(letters)
    decomposed = "tie\u0302\u0301ng Vie\u0323\u0302t"
    assert "tiếng Việt" in draw(Counts(decomposed, "n", ("a",), (1,))).data.decode()


def test_words_are_escaped() -> None:
    bad = "<script>中&"
    for words in (bad, bad.replace("中", "")):
        text = draw(Counts(words, words, (words,), (1,))).data.decode()
        assert "<script>" not in text
        assert text.count(words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")) == 3


def test_pictures_of_one_page_share_no_ids_and_load_nothing() -> None:
    first, second = (inline(draw(CHARTS["dots"]).data, name, 'a "b" <c>') for name in ("x", "y"))
    ids = [{element.get("id") for element in _parsed(svg).iter()} - {None} for svg in (first, second)]
    assert not ids[0] & ids[1]
    assert all(name is not None and name.startswith("x-") for name in ids[0])
    for svg in (first, second):
        assert "http" not in svg
        assert "<style" not in svg
        assert figures.INK not in svg
        assert svg.startswith('<svg role="img" aria-label="a &quot;b&quot; &lt;c&gt;" viewBox=')
        used = {link.removeprefix("#") for element in _parsed(svg).iter() if (link := element.get("link"))}
        assert used <= {element.get("id") for element in _parsed(svg).iter()}
        assert used


def test_many_rows_and_long_names_are_drawn_without_a_warning() -> None:
    groups = tuple(f"group {number} " + "中文" * 40 for number in range(60))
    rows = tuple(f"row {number} " + "long " * 30 for number in range(20))
    drawn = draw(Compared("t", "u", groups, rows, ((Estimate(1, 0, 2),) * 60,) * 20))
    assert len(drawn.data) < 1_500_000


def test_without_matplotlib_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError) as caught:
        draw(CHARTS["counts"])
    assert str(caught.value) == "figure: got no matplotlib; expected the extra `plots`; try pip install '.[plots]'"


def _parsed(svg: str) -> ElementTree.Element:
    """An element of a page as XML, which has no `xlink:` without its declaration."""
    return ElementTree.fromstring(svg.replace("xlink:href", "link"))


def _font(path: Path, name: str, letters: str) -> None:
    """A font whose letters are boxes."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 800), (800, 800), (800, 0)):
        pen.lineTo(corner)
    pen.closePath()
    glyphs = [".notdef", *(f"u{ord(letter):04X}" for letter in letters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(glyphs)
    builder.setupCharacterMap({ord(letter): f"u{ord(letter):04X}" for letter in letters})
    box = pen.glyph()
    builder.setupGlyf(dict.fromkeys(glyphs, box))
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": name, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, sTypoDescender=-200)
    builder.setupPost()
    builder.save(path)
