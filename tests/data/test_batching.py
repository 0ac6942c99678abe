"""Which examples meet in a step, how they are laid into rows, and what a trainer that starts or resumes is given."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from babeltune.data.batching import Examples, Plan, StepBatch, StepDataset, StepSampler
from babeltune.data.datamodule import MixDataModule
from babeltune.data.packing import cut, pack, share
from babeltune.data.rows import IGNORED, Document, Rowing, collate, weightless
from babeltune.data.store import TokenStore, build_store
from babeltune.errors import DataError
from babeltune.options import DataConfig, Layout, OptimizerConfig, Order, TrainerConfig
from babeltune.records import Conversation, Message, Segment

MAX_TOKENS = 40
PAD = 0


class Letters:
    """Stands for an encoder: a character is a token."""

    def encode(self, conversations: list[list[Segment]]) -> list[list[list[int]]]:
        return [[[ord(letter) for letter in segment.text] for segment in segments] for segments in conversations]


def _store(folder: Path, source: str, lengths: list[tuple[int, int]]) -> TokenStore:
    messages = [(Message("user", "q" * prompt), Message("assistant", "a" * answer)) for prompt, answer in lengths]
    rows = [Conversation(pair, source, "en", f"{source}:{i}") for i, pair in enumerate(messages)]

    def render(conversation: Conversation) -> list[Segment]:
        return [Segment(message.text, message.role == "assistant") for message in conversation.messages]

    return build_store({"source": source}, folder, rows, render, Letters(), MAX_TOKENS, lambda _: False)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    folder = tmp_path_factory.mktemp("cache")
    rng = np.random.default_rng(0)
    first = _store(folder, "one", [(int(p), int(a) + 2) for p, a in rng.integers(0, 18, (23, 2))])
    second = _store(folder, "two", [(int(p), int(a)) for p, a in rng.integers(1, 18, (10, 2))])
    return Examples([(first, first.pool), (second, np.array([3, 3, 0, 7, 9]))])


def _plan(examples: Examples, **changes: Any) -> Plan:
    settings = {"seed": 5, "epochs": 2.0, "global_batch": 8, "order": Order.shuffled, "max_steps": None} | changes
    return Plan(examples.lengths, examples.target_counts, **settings)


def _dataset(examples: Examples, plan: Plan, **changes: Any) -> StepDataset:
    settings = {"layout": Layout.packed, "max_tokens": MAX_TOKENS, "micro_tokens": 100, "pad_id": PAD} | changes
    return StepDataset(examples, plan, **settings)


def _num_labels(batch: StepBatch) -> int:
    return sum(int((micro.labels_BT != IGNORED).sum()) for micro in batch.micro_batches)


def _num_real(batch: StepBatch) -> int:
    return sum(int((micro.document_ids_BT >= 0).sum()) for micro in batch.micro_batches)


def _fingerprint(batch: StepBatch) -> tuple[Any, ...]:
    return (batch.step, batch.examples, *(micro.input_ids_BT.tolist() for micro in batch.micro_batches))


@pytest.mark.parametrize("order", Order)
@given(count=st.integers(1, 300), global_batch=st.integers(1, 40), seed=st.integers(0, 3), epochs=st.integers(1, 3))
@settings(deadline=None)
def test_every_epoch_holds_every_example_exactly_once(order: Order, count: int, global_batch: int, seed: int, epochs: int) -> None:
    lengths = np.arange(count) * 7 % 31 + 2
    plan = Plan(lengths, lengths - 1, seed=seed, epochs=epochs, global_batch=global_batch, order=order)
    assert plan.total_steps == epochs * -(-count // global_batch)
    steps = [plan.step(number).tolist() for number in range(plan.total_steps)]
    for epoch in range(epochs):
        of_epoch = steps[epoch * plan.steps_per_epoch : (epoch + 1) * plan.steps_per_epoch]
        assert sorted(chain.from_iterable(of_epoch)) == list(range(count))
        assert [len(step) for step in of_epoch[:-1]] == [global_batch] * (plan.steps_per_epoch - 1)


@pytest.mark.parametrize("order", Order)
def test_a_step_is_a_function_of_seed_and_number_alone(examples: Examples, order: Order) -> None:
    plan = _plan(examples, order=order)
    forward = [plan.step(number).tolist() for number in range(plan.total_steps)]
    backward = [_plan(examples, order=order).step(number).tolist() for number in reversed(range(plan.total_steps))]
    assert forward == backward[::-1]
    assert forward != [_plan(examples, order=order, seed=6).step(number).tolist() for number in range(plan.total_steps)]
    assert forward[: plan.steps_per_epoch] != forward[plan.steps_per_epoch :]


def test_the_order_of_a_seed_never_changes() -> None:
    plan = Plan(np.full(8, 5), np.full(8, 4), seed=0, epochs=1, global_batch=8)
    assert plan.step(0).tolist() == [6, 7, 4, 0, 5, 2, 1, 3]


def test_parts_of_an_epoch_are_its_first_steps() -> None:
    def steps(epochs: float, max_steps: int | None = None) -> int:
        return Plan(np.full(100, 5), np.full(100, 4), seed=0, epochs=epochs, global_batch=1, max_steps=max_steps).total_steps

    assert [steps(0.29), steps(0.295), steps(1.5), steps(0.001), steps(3.0), steps(3.0, 7)] == [29, 29, 150, 1, 300, 7]


def test_grouped_order_brings_like_lengths_together() -> None:
    lengths = np.random.default_rng(0).integers(2, 500, 1000)
    spread = {}
    for order in Order:
        plan = Plan(lengths, lengths - 1, seed=0, epochs=1, global_batch=10, order=order)
        spread[order] = np.mean([np.ptp(lengths[plan.step(number)]) for number in range(100)])
    assert spread[Order.grouped] < spread[Order.shuffled] / 10


def test_an_empty_mix_is_refused() -> None:
    with pytest.raises(DataError, match="data: got no example; expected a mix with at least one"):
        Plan(np.zeros(0, np.int64), np.zeros(0, np.int64), seed=0, epochs=1, global_batch=4)


def test_a_step_with_nothing_to_learn_is_refused(examples: Examples) -> None:
    plan = Plan(examples.lengths, np.zeros(len(examples), np.int64), seed=0, epochs=1, global_batch=4)
    with pytest.raises(DataError, match="step 3: got none; expected at least one token to learn in its 4 examples"):
        _dataset(examples, plan)[3]


@given(st.lists(st.integers(1, 60), max_size=60), st.integers(1, 5))
def test_the_shares_of_all_ranks_make_the_step(lengths: list[int], world: int) -> None:
    shares = [share(lengths, rank, world) for rank in range(world)]
    assert sorted(chain.from_iterable(shares)) == list(range(len(lengths)))
    loads = [sum(lengths[i] for i in mine) for mine in shares]
    assert max(loads) - min(loads) <= max(lengths, default=0)


@given(st.lists(st.integers(1, 60), max_size=80), st.integers(1, 70))
def test_packing_loses_no_example_and_overfills_no_row(lengths: list[int], capacity: int) -> None:
    rows = pack(lengths, capacity)
    assert sorted(chain.from_iterable(rows)) == list(range(len(lengths)))
    for row in rows:
        assert len(row) == 1 or sum(lengths[i] for i in row) <= capacity


def test_packing_fills_rows_well() -> None:
    lengths = np.random.default_rng(0).lognormal(4.6, 0.6, 5000).astype(int).clip(10, 512)
    assert lengths.sum() / (512 * len(pack(lengths, 512))) > 0.98


def test_packed_rows_are_made_even() -> None:
    assert sorted(sum([30, 30, 30, 10][i] for i in row) for row in pack([30, 30, 30, 10], 90)) == [40, 60]


@given(st.lists(st.integers(1, 60), max_size=60), st.integers(1, 300))
def test_micro_batches_hold_no_more_tokens_than_asked_padding_included(widths: list[int], micro_tokens: int) -> None:
    groups = cut(widths, micro_tokens)
    assert sorted(chain.from_iterable(groups)) == list(range(len(widths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(widths[i] for i in group) <= micro_tokens


def _document(ids: list[int], targets: list[int], source: int = 0) -> Document:
    return Document(np.array(ids, np.int32), np.array(targets, np.bool_), source)


def test_positions_restart_and_no_label_crosses_documents() -> None:
    first = _document([11, 12, 13], [0, 1, 1], source=4)
    second = _document([21, 22, 23, 24], [1, 0, 0, 1], source=2)  # its first token has nothing to be predicted from
    batch = collate([[first, second], [first]], PAD)
    assert batch.input_ids_BT.tolist() == [[11, 12, 13, 21, 22, 23, 24], [11, 12, 13, PAD, PAD, PAD, PAD]]
    assert batch.position_ids_BT.tolist() == [[0, 1, 2, 0, 1, 2, 3], [0, 1, 2, 0, 1, 2, 3]]
    assert batch.document_ids_BT.tolist() == [[0, 0, 0, 1, 1, 1, 1], [2, 2, 2, -1, -1, -1, -1]]
    none = IGNORED
    assert batch.labels_BT.tolist() == [[12, 13, none, none, none, 24, none], [12, 13] + [none] * 5]
    assert batch.source_ids_BT.tolist() == [[4, 4, -1, -1, -1, 2, -1], [4, 4] + [-1] * 5]


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("world", [1, 2, 3, 10])
def test_ranks_together_hold_the_step_with_its_labels_and_tokens(examples: Examples, layout: Layout, world: int) -> None:
    plan = _plan(examples)
    for number in range(plan.total_steps):
        shares = [_dataset(examples, plan, layout=layout, rank=r, world=world)[number] for r in range(world)]
        assert Counter(chain.from_iterable(batch.examples for batch in shares)) == Counter(plan.step(number).tolist())
        assert {batch.num_targets for batch in shares} == {sum(map(_num_labels, shares))}
        assert {batch.num_tokens for batch in shares} == {
            sum(_num_real(batch) for batch in shares) - sum(_num_idle(batch) for batch in shares)
        }
        assert len({len(batch.micro_batches) for batch in shares}) == 1


def _num_idle(batch: StepBatch) -> int:
    return sum(micro.input_ids_BT.shape == (1, 1) and micro.input_ids_BT.item() == PAD for micro in batch.micro_batches)


@pytest.mark.parametrize("layout", Layout)
def test_a_row_holds_its_examples_unchanged(examples: Examples, layout: Layout) -> None:
    for batch in (_dataset(examples, _plan(examples), layout=layout)[number] for number in range(3)):
        found = []
        for micro in batch.micro_batches:
            assert micro.input_ids_BT.numel() <= 100
            for row, documents, labels, sources in zip(
                micro.input_ids_BT, micro.document_ids_BT, micro.labels_BT, micro.source_ids_BT, strict=True
            ):
                for document in documents.unique():
                    if document >= 0:
                        here = documents == document
                        found.append((row[here].tolist(), labels[here].tolist(), sources[here].unique().tolist()))
        wanted = []
        for number in batch.examples:
            example = examples[number]
            labels = [int(i) if t else IGNORED for i, t in zip(example.ids[1:], example.targets[1:], strict=True)]
            sources = sorted({example.source if label != IGNORED else -1 for label in [*labels, IGNORED]})
            wanted.append((example.ids.tolist(), [*labels, IGNORED], sources))
        assert sorted(found) == sorted(wanted)


def test_a_weightless_batch_has_a_token_and_no_label() -> None:
    batch = weightless(PAD)
    assert batch.input_ids_BT.tolist() == [[PAD]]
    assert batch.labels_BT.tolist() == [[IGNORED]]
    assert batch.document_ids_BT.tolist() == [[0]]


def test_moving_a_step_moves_all_its_tensors(examples: Examples) -> None:
    batch = _dataset(examples, _plan(examples))[0].to("meta")
    assert all(getattr(micro, name).is_meta for micro in batch.micro_batches for name in micro.__slots__[:5])


@pytest.mark.parametrize("workers", [1, 2])
def test_loader_processes_change_nothing(examples: Examples, workers: int) -> None:
    plan = _plan(examples)

    def read(num_workers: int) -> list[tuple[Any, ...]]:
        dataset = _dataset(examples, plan, rank=1, world=2)
        sampler = StepSampler(2, plan.total_steps)
        return [_fingerprint(b) for b in DataLoader(dataset, batch_size=None, sampler=sampler, num_workers=num_workers)]

    assert read(workers) == read(0)


class Recorder(LightningModule):
    """Learns nothing; remembers which steps it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[Any, ...]] = []

    def training_step(self, batch: StepBatch, index: int) -> None:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.weight.sum())
        optimizer.step()
        self.seen.append(_fingerprint(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class SaveEachStep(Callback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


def _fit(examples: Examples, callbacks: list[Callback], checkpoint: Path | None = None, seed: int = 1) -> list[tuple[Any, ...]]:
    data = DataConfig(name="mix", max_tokens=MAX_TOKENS, order=Order.grouped)
    optimizer = OptimizerConfig(epochs=2.0, global_batch=6)
    module = Recorder()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=callbacks,
    )
    small = TrainerConfig(name="cpu", micro_tokens=80)
    trainer.fit(
        module,
        datamodule=MixDataModule(examples, data=data, optimizer=optimizer, trainer=small, seed=seed, pad_id=PAD),
        ckpt_path=checkpoint,
    )
    return module.seen


@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")  # the toy needs none
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")  # Lightning's own
@pytest.mark.filterwarnings("ignore:The `srun` command is available")  # a machine of a cluster, or of its tests
def test_a_run_that_is_killed_at_any_step_of_two_epochs_goes_on_as_if_it_had_not_been(examples: Examples, tmp_path: Path) -> None:
    whole = _fit(examples, [SaveEachStep(tmp_path)])
    assert [step for step, *_ in whole] == list(range(2 * 5))
    for killed_after in range(1, len(whole)):
        assert whole[:killed_after] + _fit(examples, [], tmp_path / f"{killed_after}.ckpt") == whole
    with pytest.raises(DataError, match="checkpoint: got one of other data"):
        _fit(examples, [], tmp_path / "3.ckpt", seed=2)


@pytest.mark.filterwarnings("ignore:The `srun` command is available")  # a machine of a cluster, or of its tests
def test_starting_the_loader_draws_no_random_number(examples: Examples) -> None:
    data = MixDataModule(
        examples,
        data=DataConfig(name="mix", max_tokens=MAX_TOKENS),
        optimizer=OptimizerConfig(global_batch=6),
        trainer=TrainerConfig(name="cpu"),
        seed=1,
        pad_id=PAD,
    )
    data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    before = torch.get_rng_state()
    next(iter(data.train_dataloader()))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("rowing", list(Rowing))
def test_a_step_of_fewer_examples_than_ranks_gives_each_rank_as_many_micro_batches(examples: Examples, rowing: Rowing) -> None:
    plan = _plan(examples, global_batch=2)
    found = [_dataset(examples, plan, rowing=rowing, rank=rank, world=3)[0] for rank in range(3)]
    assert sorted(number for one in found for number in one.examples) == sorted(plan.step(0).tolist())
    assert [len(one.micro_batches) for one in found] == [1, 1, 1]
    assert sum(_num_labels(one) for one in found) == found[0].num_targets
