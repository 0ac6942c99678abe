"""Long conversations are cut between pairs; FastChat's losses are counted and only made when asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babeltune.data.cleaning.splitting import cuts, fastchat_cuts, split, token_counts
from babeltune.errors import ConfigError
from babeltune.records import Conversation, Dropped
from babeltune.steps import SplitStep

from .dialogues import at, chat, counter, document, only, reason, roles, texts

PAIRS = st.lists(st.integers(1, 12), min_size=1, max_size=12)


def words(count: int, word: str = "từ") -> str:
    return " ".join([word] * count)


def pair(tokens: int, name: str) -> list[str]:
    """A question and an answer of so many tokens together, the one before each text counted."""
    return [name, words(tokens - 3, name)]


def talk(*lengths: int, system: str = "") -> Conversation:
    return chat(*[text for number, length in enumerate(lengths) for text in pair(length, f"p{number}")], system=system)


def segments(row: Conversation, step: SplitStep) -> tuple[list[list[str]], dict[str, int]]:
    """Names of the pairs of every segment, and the report."""
    place = at()
    found = split(step, place)(row)
    names = [[message.text for message in one.messages if message.role == "user"] for one in found if isinstance(one, Conversation)]
    return names, place.report


def test_pairs_are_gathered_while_they_fit() -> None:
    names, report = segments(talk(4, 4, 4, 4, 4), SplitStep(max_tokens=8, overhead=0))
    assert names == [["p0", "p1"], ["p2", "p3"], ["p4"]]
    assert report == {"segments": 3, "segments_fastchat": 2, "lost_pairs_fastchat": 1, "too_long_pairs": 0}


def test_the_bugs_of_fastchat_come_back_when_asked() -> None:
    names, report = segments(talk(4, 4, 4, 4, 4), SplitStep(max_tokens=8, overhead=0, fastchat_bugs=True))
    assert names == [["p0", "p1"], ["p2", "p3"]]
    assert report["segments"] == 3
    names, _ = segments(talk(9, 4, 4), SplitStep(max_tokens=8, overhead=0, fastchat_bugs=True))
    assert names == [["p0"], ["p1", "p2"]]
    names, report = segments(talk(9), SplitStep(max_tokens=8, overhead=0, fastchat_bugs=True))
    assert names == []
    assert report == {"segments": 0, "segments_fastchat": 0, "lost_pairs_fastchat": 1, "too_long_pairs": 1}


def test_a_pair_that_is_too_long_goes_alone_and_its_neighbours_are_not_joined() -> None:
    names, report = segments(talk(3, 9, 3, 3), SplitStep(max_tokens=8, overhead=0))
    assert names == [["p0"], ["p2", "p3"]]
    assert report == {"segments": 2, "segments_fastchat": 3, "lost_pairs_fastchat": 0, "too_long_pairs": 1}


def test_a_conversation_of_nothing_but_too_long_pairs_is_dropped() -> None:
    assert reason(split(SplitStep(max_tokens=8, overhead=0), at())(talk(9, 12))) == ("too long", "12 tokens in a pair")


def test_the_overhead_counts_for_every_turn() -> None:
    assert segments(talk(4, 4), SplitStep(max_tokens=8, overhead=0))[0] == [["p0", "p1"]]
    assert segments(talk(4, 4), SplitStep(max_tokens=8, overhead=1))[0] == [["p0"], ["p1"]]
    assert segments(talk(4, 4), SplitStep(max_tokens=12, overhead=1))[0] == [["p0", "p1"]]


def test_the_system_message_goes_on_every_segment_and_takes_its_room() -> None:
    found = split(SplitStep(max_tokens=10, overhead=0), at())(talk(4, 4, 4, system="be kind"))
    assert [texts(one)[0] for one in found] == ["be kind"] * 3
    assert [one.place for one in found] == ["a.jsonl:1_0", "a.jsonl:1_2", "a.jsonl:1_4"]


def test_what_fits_stays_as_it_is_with_its_place() -> None:
    row = talk(4, 4)
    assert only(split(SplitStep(), at()), row) is row


def test_a_last_question_without_an_answer_goes() -> None:
    found = only(split(SplitStep(), at()), chat("a", "b", "c"))
    assert texts(found) == ["a", "b"]


@pytest.mark.parametrize("row", [document(words(5000)), roles("user", "user"), roles("assistant", "user"), chat("a")])
def test_documents_and_what_is_out_of_order_pass(row: Conversation) -> None:
    assert only(split(SplitStep(max_tokens=8), at()), row) is row


def test_the_report_adds_up_over_rows() -> None:
    place = at()
    step = split(SplitStep(max_tokens=8, overhead=0), place)
    for row in (talk(4, 4, 4), talk(9), talk(4)):
        step(row)
    assert place.report == {"segments": 3, "segments_fastchat": 2, "lost_pairs_fastchat": 2, "too_long_pairs": 1}


def test_tokens_are_counted_with_and_without_what_the_tokenizer_adds() -> None:
    assert token_counts(counter(), ["một hai", "", "三"]) == [3, 1, 2]
    assert token_counts(counter(), ["một hai", "", "三"], special=False) == [2, 0, 1]


def test_the_tokenizer_is_the_one_asked_for(tmp_path: Path) -> None:
    asked: list[str | None] = []
    place = at(tmp_path)
    place.tokenizer = lambda name: asked.append(name) or counter()
    split(SplitStep(tokenizer="some/folder"), place)
    split(SplitStep(), place)
    assert asked == ["some/folder", None]


def test_no_room_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^split\.max_tokens: got 0; expected a count above 0; try 2048$"):
        split(SplitStep(max_tokens=0), at())


@settings(deadline=None)
@given(PAIRS, st.integers(1, 20))
def test_every_pair_that_fits_is_in_one_segment_in_order_and_no_segment_overflows(pairs: list[int], room: int) -> None:
    found = cuts(pairs, room)
    inside = [number for start, end in found for number in range(start, end)]
    assert inside == [number for number, length in enumerate(pairs) if length <= room]
    assert all(start < end and sum(pairs[start:end]) <= room for start, end in found)


@settings(deadline=None)
@given(PAIRS, st.integers(1, 20))
def test_fastchat_agrees_wherever_its_bugs_do_not_strike(pairs: list[int], room: int) -> None:
    ours, theirs = cuts(pairs, room), fastchat_cuts(pairs, room)
    if max(pairs) <= room:
        assert theirs in (ours, ours[:-1])
    assert len([cut for cut in theirs if cut[0] < cut[1]]) <= len(ours) + sum(length > room for length in pairs)


@settings(deadline=None)
@given(st.lists(st.integers(3, 12), min_size=1, max_size=8), st.booleans())
def test_no_message_is_torn_or_invented(lengths: list[int], bugs: bool) -> None:
    row = talk(*lengths)
    for one in split(SplitStep(max_tokens=10, overhead=0, fastchat_bugs=bugs), at())(row):
        if not isinstance(one, Dropped):
            assert set(one.messages) <= set(row.messages)
            assert [message.role for message in one.messages] == ["user", "assistant"] * (len(one.messages) // 2)
