"""Which examples make step k, how they are dealt to ranks and laid into rows, and the tensors of it.

Everything is a pure function of (seed, step), so resuming is starting at step k, and no rank asks another what it has.
"""

# B rows of a micro-batch, T tokens of a row

from __future__ import annotations

import hashlib
import itertools
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from babeltune.data.packing import Numbers, cut, pack, share
from babeltune.data.rows import Document, MicroBatch, Rowing, collate, flat_rows, flatten, weightless
from babeltune.data.sharing import fill
from babeltune.errors import DataError, problem
from babeltune.options import Layout, Order

WINDOW_STEPS = 50
"""`Order.grouped` sorts the examples of so many steps by length at a time."""


class Rows(Protocol):
    """Tokens by row: a store, or texts joined into blocks."""

    @property
    def lengths(self) -> NDArray[np.int32]: ...
    @property
    def target_counts(self) -> NDArray[np.int32]: ...
    def __getitem__(self, row: int, /) -> tuple[NDArray[np.int32], NDArray[np.bool_]]: ...


class Examples:
    """A mix: rows of several stores under one numbering, in the order given. A row named twice is two examples."""

    def __init__(self, parts: Sequence[tuple[Rows, Numbers]]) -> None:
        self._stores = [store for store, _ in parts]
        self._rows: Numbers = _joined([rows for _, rows in parts])
        self._ends = list(itertools.accumulate(len(rows) for _, rows in parts))
        self.lengths: Numbers = _joined([store.lengths[rows] for store, rows in parts])
        self.target_counts: Numbers = _joined([store.target_counts[rows] for store, rows in parts])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Document:
        source = bisect_right(self._ends, number)
        ids, targets = self._stores[source][int(self._rows[number])]
        return Document(ids, targets, source)


def _joined(arrays: Sequence[NDArray[np.integer]]) -> Numbers:
    joined = np.empty(sum(map(len, arrays)), np.int32)
    return np.concatenate(arrays, out=joined, casting="same_kind") if arrays else joined


class Plan:
    """Which examples make each optimizer step of a run.

    Every epoch holds every example once; its last step is smaller when they do not come out even. Part of an epoch is
    its first steps.
    """

    def __init__(
        self,
        lengths: Numbers,
        target_counts: Numbers,
        *,
        seed: int,
        epochs: float,
        global_batch: int,
        order: Order = Order.shuffled,
        max_steps: int | None = None,
    ) -> None:
        if len(lengths) == 0:
            raise DataError(problem("data", "no example", "a mix with at least one", "more rows or a larger data.max_tokens"))
        self.lengths = lengths
        self.target_counts = target_counts
        self.steps_per_epoch = -(-len(lengths) // global_batch)
        rounding = 1e-9  # 0.29 * 100 is 28.999999999999996
        self.total_steps = min(max(1, int(epochs * self.steps_per_epoch + rounding)), max_steps or sys.maxsize)
        self._seed = seed
        self._global_batch = global_batch
        self._order = order
        self._epoch: tuple[int, Numbers] = (-1, lengths[:0])

    def step(self, number: int) -> Numbers:
        """The examples of step `number`, counted from 0."""
        if not 0 <= number < self.total_steps:
            raise IndexError(number)
        epoch, position = divmod(number, self.steps_per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._permutation(epoch))
        start = position * self._global_batch
        return self._epoch[1][start : start + self._global_batch]

    @cached_property
    def digest(self) -> str:
        """Tells apart mixes and orders: the size of every example, and who makes the first step."""
        whole = hashlib.sha256()
        for part in (self.lengths, self.target_counts, self.step(0)):
            whole.update(np.ascontiguousarray(part, np.int32).data)
        return whole.hexdigest()

    def _permutation(self, epoch: int) -> Numbers:
        shuffled = _permutation(len(self.lengths), f"{self._seed}/order/{epoch}")
        match self._order:
            case Order.shuffled:
                return shuffled
            case Order.grouped:
                return self._grouped(shuffled, f"{self._seed}/steps/{epoch}")
            case _:
                assert_never(self._order)

    def _grouped(self, shuffled: Numbers, name: str) -> Numbers:
        """Examples of like length in a step, steps in random order; the smaller last step stays where it is."""
        num_even = len(shuffled) // self._global_batch * self._global_batch
        window = WINDOW_STEPS * self._global_batch
        windows = [shuffled[start : min(start + window, num_even)] for start in range(0, num_even, window)]
        by_length = _joined([part[np.argsort(self.lengths[part], kind="stable")] for part in windows])
        steps = by_length.reshape(-1, self._global_batch)
        return _joined([steps[_permutation(len(steps), name)].ravel(), shuffled[num_even:]])


def _permutation(count: int, name: str) -> Numbers:
    """A random order of 0 .. count - 1 that depends on the name alone, whatever the version of numpy."""
    generator = np.random.PCG64(int.from_bytes(hashlib.sha256(name.encode()).digest()))
    return np.argsort(generator.random_raw(count), kind="stable").astype(np.int32)


@dataclass(frozen=True, slots=True)
class StepBatch:
    """One rank's share of one optimizer step."""

    step: int
    micro_batches: tuple[MicroBatch, ...]
    """As many on every rank; those that are only there to be as many are weightless."""
    num_targets: int
    """Labels in the whole step, over all ranks: what the summed loss is divided by."""
    num_tokens: int
    """Tokens in the whole step, over all ranks, without padding."""
    examples: tuple[int, ...]
    """The examples that fell to this rank."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> StepBatch:
        return replace(self, micro_batches=tuple(batch.to(device, non_blocking) for batch in self.micro_batches))


class StepDataset(Dataset[StepBatch]):
    """`dataset[k]` is this rank's share of step k."""

    def __init__(
        self,
        examples: Examples,
        plan: Plan,
        *,
        layout: Layout,
        max_tokens: int,
        micro_tokens: int,
        pad_id: int,
        rowing: Rowing = Rowing.even,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.plan = plan
        self._examples = examples
        self._layout = layout
        self._max_tokens = max_tokens
        self._micro_tokens = micro_tokens
        self._pad_id = pad_id
        self._rowing = rowing
        self._rank = rank
        self._world = world

    def __len__(self) -> int:
        return self.plan.total_steps

    def __getitem__(self, step: int) -> StepBatch:
        numbers = self.plan.step(step)
        num_targets = int(self.plan.target_counts[numbers].sum())
        if num_targets == 0:
            expected = f"at least one token to learn in its {len(numbers)} examples"
            raise DataError(problem(f"step {step}", "none", expected, "dropping rows without an answer"))
        lengths = self.plan.lengths[numbers]
        shares = [numbers[share(lengths, rank, self._world)] for rank in range(self._world)]
        counts = [self._count(share) for share in shares]
        batches = self._micro_batches(shares[self._rank])
        batches += [weightless(self._pad_id, self._rowing)] * (max(counts) - len(batches))
        examples = tuple(shares[self._rank].tolist())
        return StepBatch(step, tuple(batches), num_targets, int(lengths.sum()), examples)

    def _micro_batches(self, numbers: Numbers) -> list[MicroBatch]:
        if self._rowing is Rowing.even:
            return [collate([[self._examples[n] for n in row] for row in rows], self._pad_id) for rows in self._even(numbers)]
        documents = [self._examples[n] for n in numbers.tolist()]
        return [flatten(documents, row) for row in flat_rows(documents, self._rowing, self._micro_tokens)]

    def _count(self, numbers: Numbers) -> int:
        """Micro-batches that examples make."""
        if self._world == 1:
            return 0
        match self._rowing:
            case Rowing.even:
                return len(self._even(numbers))
            case Rowing.flat:
                return len(pack(self.plan.lengths[numbers], self._micro_tokens))
            case Rowing.shared:
                return len(fill([self._examples[n] for n in numbers.tolist()], self._micro_tokens))
            case _:
                assert_never(self._rowing)

    def _even(self, numbers: Numbers) -> list[list[list[int]]]:
        """Micro-batches of rows of example numbers."""
        lengths = self.plan.lengths[numbers]
        match self._layout:
            case Layout.packed:
                rows = pack(lengths, self._max_tokens)
            case Layout.padded:
                rows = [[position] for position in range(len(numbers))]
            case _:
                assert_never(self._layout)
        widths = [int(lengths[row].sum()) for row in rows]
        return [[numbers[rows[i]].tolist() for i in group] for group in cut(widths, self._micro_tokens)]


class StepSampler(Sampler[int]):
    """Steps from `start` on. Its length is the whole run: Lightning counts the steps done before as fetched."""

    def __init__(self, start: int, total: int) -> None:
        self._start = start
        self._total = total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._start, self._total))

    def __len__(self) -> int:
        return self._total
