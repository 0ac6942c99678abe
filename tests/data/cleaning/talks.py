"""Conversations for the tests of cleaning steps that compare rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from babeltune.data.cleaning.kinds import CorpusStep, Outcome, Place
from babeltune.records import Conversation, Message


def talk(question: str, answer: str = "", place: str = "a.jsonl:1", language: str = "en", given: str = "") -> Conversation:
    messages = (Message("user", question, input=given), Message("assistant", answer))
    return Conversation(messages, "mine", language, place)


def talks(*texts: str) -> list[Conversation]:
    """One conversation for each text, which is its answer, in lines counted from 1."""
    return [talk("?", text, f"a.jsonl:{number}") for number, text in enumerate(texts, start=1)]


def room(folder: Path) -> Place:
    (folder / "scratch").mkdir(exist_ok=True)
    return Place(scratch=folder / "scratch", cache=folder / "cache", tokenizer=lambda name: None)


def kept(step: CorpusStep, corpus: Sequence[Conversation]) -> list[int]:
    """The numbers of the conversations that stay, counted from 0; every conversation has one outcome."""
    outcomes: list[Outcome] = list(step(corpus))
    assert len(outcomes) == len(corpus)
    assert all(outcome.place == row.place for outcome, row in zip(outcomes, corpus, strict=True))
    return [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Conversation)]
