"""Which fonts write the words of a picture, and what stands for a word that none of them can write."""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal
from xml.sax.saxutils import escape

Form = Literal["svg", "png"]

OWN_FONT = "DejaVu Sans"
"""Comes with matplotlib; has Latin with Vietnamese letters, Greek and Cyrillic."""
CJK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "PingFang SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "SimHei",
    "Arial Unicode MS",
)
LONGEST = 60
"""Letters of a label; what is longer loses its end."""


@dataclass(slots=True)
class Words:
    """What stands in the picture in the place of each word, and what is put back into an SVG afterwards."""

    form: Form
    can_write: Callable[[str], bool]
    back: dict[str, str] = field(default_factory=dict)

    def __call__(self, text: str) -> str:
        clean = unicodedata.normalize("NFC", " ".join(text.split()))
        clean = clean if len(clean) <= LONGEST else clean[: LONGEST - 1] + "…"
        if self.can_write(clean):
            return clean
        known = {words: stand for stand, words in self.back.items()}
        if clean in known:
            return known[clean]
        number = len(self.back) + 1
        stand = f"[{number}]" if self.form == "png" else as_wide(clean, number)
        self.back[stand] = clean
        return stand

    def notes(self) -> tuple[str, ...]:
        """The sentences of a PNG: what its numbers mean."""
        if self.form == "svg" or not self.back:
            return ()
        hint = "no font here writes these words; install one, as fonts-noto-cjk (Debian, Ubuntu), or draw an .svg"
        return (hint, *(f"{stand} {words}" for stand, words in self.back.items()))

    def restored(self, data: bytes) -> bytes:
        if self.form == "png":
            return data
        text = data.decode()
        for stand, words in self.back.items():
            text = text.replace(stand, escape(words))
        return text.encode()


def fonts_for(texts: Iterable[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """matplotlib's own font, and after it each installed one that writes a word which those before it cannot."""
    from matplotlib import font_manager

    chosen: tuple[str, ...] = (OWN_FONT,)
    clean = [unicodedata.normalize("NFC", text) for text in texts]
    if wanted and not all(map(writer(chosen), clean)):
        _notice_new_fonts()
    there = {font.name for font in font_manager.fontManager.ttflist}
    for name in wanted:
        missing = [text for text in clean if not writer(chosen)(text)]
        if name in there and any(writer((*chosen, name))(text) for text in missing):
            chosen = (*chosen, name)
    return chosen


def _notice_new_fonts() -> None:
    """matplotlib lists the fonts of a machine once and for all; those that were installed since then are added here."""
    from matplotlib import font_manager

    known = {font.fname for font in font_manager.fontManager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - known):
        with contextlib.suppress(OSError, RuntimeError):  # a font that FreeType cannot read is no font for matplotlib either
            font_manager.fontManager.addfont(path)


def writer(fonts: Sequence[str]) -> Callable[[str], bool]:
    """Whether these fonts together have every letter of a text."""
    from matplotlib import font_manager

    found = [font_manager.get_font(font_manager.findfont(name, fallback_to_default=False)).get_charmap() for name in fonts]
    return lambda text: all(letter.isspace() or any(ord(letter) in known for known in found) for letter in text)


def as_wide(text: str, number: int) -> str:
    """Letters about as wide as the text, found nowhere else: the layout is made with them."""
    width = sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
    return f"Q{number:03d}Q".ljust(round(width * 0.75), "W")
