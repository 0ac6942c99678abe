"""A source larger than memory: what a row costs while it is read, mixed and planned."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from babeltune.data.batching import Examples, Plan, StepDataset
from babeltune.data.mixing import Pool, mix
from babeltune.data.store import TokenStore, build_store
from babeltune.options import DataConfig, Layout, TakeConfig, TemperatureOver
from babeltune.records import Conversation, Message, Segment

FEW, MANY = 10_000, 40_000


class Letters:
    """Stands for an encoder: a character is a token."""

    def encode(self, conversations: list[list[Segment]]) -> list[list[list[int]]]:
        return [[list(segment.text.encode()) for segment in segments] for segments in conversations]


def build(folder: Path, rows: int) -> TokenStore:
    def conversations() -> Iterator[Conversation]:
        for number in range(rows):
            yield Conversation((Message("user", f"{number}?"), Message("assistant", "yes")), "a", "zvi"[number % 3], f"a:{number}")

    def render(conversation: Conversation) -> list[Segment]:
        return [Segment(message.text, message.role == "assistant") for message in conversation.messages]

    letters: Any = Letters()
    return build_store({"rows": rows}, folder, conversations(), render, letters, 40, lambda c: c.place.endswith("77"))


def draw(store: TokenStore, **ways: Any) -> Examples:
    pool = Pool("a", store.language_names, store.languages[store.pool], store.lengths[store.pool])
    (taken,) = mix([pool], DataConfig(name="mix", **ways), seed=0)
    return Examples([(store, store.pool[taken.indices])])


def bytes_per_row(work: Callable[[int], object]) -> tuple[float, float]:
    """Bytes that a row more costs: held when the work is done, and at most on the way."""
    held, peak = [], []
    for rows in (FEW, MANY):
        gc.collect()
        tracemalloc.start()
        result = work(rows)
        gc.collect()
        now, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        held.append(now)
        peak.append(most)
        del result
    return (held[1] - held[0]) / (MANY - FEW), (peak[1] - peak[0]) / (MANY - FEW)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("stores")
    return {rows: build(folder, rows).folder for rows in (FEW, MANY)}


def test_memory_does_not_grow_with_the_rows_of_a_source_while_it_is_read_and_tokenised(tmp_path: Path) -> None:
    build(tmp_path / "first", FEW)  # what is imported and started once
    held, peak = bytes_per_row(lambda rows: build(tmp_path, rows))
    assert held < 0.5
    assert peak < 2


@pytest.mark.parametrize(
    "ways",
    [
        {},
        {"take": {"a": TakeConfig(tokens=1.0)}},
        {"temperature": 2.0},
        {"temperature": 2.0, "temperature_over": TemperatureOver.language},
    ],
    ids=["all", "tokens", "temperature", "languages"],
)
def test_a_row_that_is_mixed_planned_and_laid_out_costs_a_few_bytes(ways: dict[str, Any], stores: dict[int, Path]) -> None:
    def work(rows: int) -> object:
        examples = draw(TokenStore(stores[rows]), **ways)
        plan = Plan(examples.lengths, examples.target_counts, seed=0, epochs=1.0, global_batch=64)
        steps = StepDataset(examples, plan, layout=Layout.packed, max_tokens=40, micro_tokens=400, pad_id=0)
        return [len(steps[step].examples) for step in range(20)], steps, plan.digest

    work(FEW)  # what is made once for all
    held, peak = bytes_per_row(work)
    assert held < 22
    assert peak < 40
