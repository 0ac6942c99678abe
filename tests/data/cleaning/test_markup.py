"""Texts taken apart and put together: nothing is lost, and what must stay stays."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from babeltune.data.cleaning.markup import Cut, Masked, kept, letters, mask, pieces

PARTS = (
    "`",
    "```\n",
    "$",
    "$$",
    "<b>",
    "https://a.b/c?d=1.",
    "[[0]]",
    "{x}",
    "%s",
    "\n",
    "\n\n",
    " ",
    ". ",
    "。",
    "A b",
    "你好",
    "1. ",
    "- ",
    "@",
)
TEXT = st.lists(st.one_of(st.sampled_from(PARTS), st.text(max_size=4)), max_size=30).map("".join)


@given(TEXT, st.sampled_from(Cut), st.integers(1, 60))
def test_the_pieces_are_the_text_and_fit(text: str, cut: Cut, most: int) -> None:
    found = pieces(text, cut, lambda one: len(one) <= most)
    assert "".join(piece.text for piece in found) == text
    for piece in found:
        if piece.is_prose and cut is not Cut.whole:
            assert letters(piece.text)
            assert len(piece.text) <= most or kept(piece.text)
            assert cut is not Cut.fragment or not mask(piece.text).parts


@given(TEXT)
def test_a_mask_that_comes_back_gives_the_text(text: str) -> None:
    masked = mask(text)
    if not any(opening in text for opening in ("[[", "{{", "((", "@@")):
        assert masked.restored(masked.text) == text
    for number in range(len(masked.parts)):
        lost = masked.text.replace(f"{masked.mark[0]}{number}{masked.mark[1]}", "", 1)
        assert masked.restored(lost) is None


KEPT = [
    ("Run `ls -l` now", "`ls -l`"),
    ("Say ``a ` b`` now", "``a ` b``"),
    ("See https://a.org/b_(c)?d=e&f#g, or not", "https://a.org/b_(c)?d=e&f#g"),
    ("见https://a.org/b。好", "https://a.org/b"),
    ("Write to an.na+b@mail.example.org.", "an.na+b@mail.example.org"),
    ('A <a href="x">link', '<a href="x">'),
    ("End </b> of", "</b>"),
    ("Let $x_1 + y$ be", "$x_1 + y$"),
    (r"Let \(x\) be", r"\(x\)"),
    ("Let\n$$\nx\n$$\nbe", "$$\nx\n$$"),
    (r"So \begin{align}a\\b\end{align} holds", r"\begin{align}a\\b\end{align}"),
    ("Dear {name}, hello", "{name}"),
    ("Dear {{ user.name }}, hello", "{{ user.name }}"),
    ("Got %(count)d rows", "%(count)d"),
    ("Write to [EMAIL] or call", "[EMAIL]"),
    ("It ends <|endoftext|> here", "<|endoftext|>"),
    ("Code:\n```python\nprint('a')\n\nb\n```\nDone", "```python\nprint('a')\n\nb\n```"),
    ("Code:\n~~~\na\n~~~\nDone", "~~~\na\n~~~"),
    ("Code:\n```\nnever closed\nb", "```\nnever closed\nb"),
    ("Look <pre>a\n  b</pre> there", "<pre>a\n  b</pre>"),
]


@pytest.mark.parametrize(("text", "part"), KEPT, ids=[part for _, part in KEPT])
@pytest.mark.parametrize("cut", [Cut.block, Cut.sentence, Cut.fragment])
def test_code_addresses_tags_and_formulas_are_not_translated(text: str, part: str, cut: Cut) -> None:
    assert kept(text) == [part]
    for piece in pieces(text, cut, lambda one: True):
        assert part not in (mask(piece.text).text if piece.is_prose else "")


@pytest.mark.parametrize(
    "text", ["It costs $5 and $10.", "a < b and c > d", "5% of all", "f(x) = {}", "3 * 4 * 5", "It's 5`, not 6"]
)
def test_what_only_looks_like_markup_is_text(text: str) -> None:
    assert [part for part in kept(text) if part != "{}"] == []


def test_sentences_are_cut_without_their_bullets_and_abbreviations() -> None:
    text = "# Head\n1. Dr. Smith is here, e.g. now. He's J. Doe!\n- (b) 你好。世界！\n2、好"
    prose = [piece.text for piece in pieces(text, Cut.sentence, lambda one: True) if piece.is_prose]
    assert prose == ["Head", "Dr. Smith is here, e.g. now.", "He's J. Doe!", "(b) 你好。", "世界！", "好"]


def test_long_texts_are_cut_at_the_best_place_there_is() -> None:
    text = "One two. Three, four.\n\nFive six seven eight nine.\nTen"
    found = [piece.text for piece in pieces(text, Cut.block, lambda one: len(one) <= 22) if piece.is_prose]
    assert found == ["One two. Three, four.", "Five six seven eight", "nine.\nTen"]


def test_a_mark_that_the_text_has_itself_is_not_taken() -> None:
    assert mask("a[[0]] `b`") == Masked("a[[0]] {{0}}", ("{{", "}}"), ("`b`",))


@pytest.mark.parametrize(
    "translation",
    ["eins [[0]]", "[[0]] [[1]] [[1]]", "[[0]] [[1]] [[2]]", "[0] [[1]]", "[[0]]\n[[1]]", "[[a]] [[1]]"],
)
def test_a_mark_that_is_lost_doubled_or_new_is_seen(translation: str) -> None:
    masked = mask("one `a` two `b`")
    assert masked.text == "one [[0]] two [[1]]"
    assert masked.restored(translation) is None
    assert masked.restored("[[1]] zwei [[ 0 ]]") == "`b` zwei `a`"


@pytest.mark.parametrize("text", ["`", "a.b-", "<a ", "$a ", "$$", r"\[", "https://", "[[", "a, ", "- ", "```\n"])
def test_no_text_takes_for_ever(text: str) -> None:
    started = time.monotonic()
    pieces(text * 3000, Cut.sentence, lambda one: len(one) < 500)
    assert time.monotonic() - started < 10  # linear takes a hundredth of it
