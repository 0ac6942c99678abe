"""The mix as Lightning asks for it."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from babeltune.data.batching import Examples, Plan, StepBatch, StepDataset, StepSampler
from babeltune.data.rows import Rowing
from babeltune.errors import DataError, problem
from babeltune.options import DataConfig, OptimizerConfig, TrainerConfig


class MixDataModule(LightningDataModule):
    """A loader whose item k is this rank's share of optimizer step k, starting where the trainer stands.

    The trainer must be told `use_distributed_sampler=False`: which rank gets what is decided here.
    """

    def __init__(
        self,
        examples: Examples,
        *,
        data: DataConfig,
        optimizer: OptimizerConfig,
        trainer: TrainerConfig,
        seed: int,
        pad_id: int,
        rowing: Rowing = Rowing.even,
    ) -> None:
        super().__init__()
        self.plan = Plan(
            examples.lengths,
            examples.target_counts,
            seed=seed,
            epochs=optimizer.epochs,
            global_batch=optimizer.global_batch,
            order=data.order,
            max_steps=optimizer.max_steps,
        )
        self._examples = examples
        self._data = data
        self._micro_tokens = trainer.micro_tokens
        self._pad_id = pad_id
        self._rowing = rowing

    def train_dataloader(self) -> DataLoader[StepBatch]:
        assert self.trainer is not None
        dataset = StepDataset(
            self._examples,
            self.plan,
            layout=self._data.layout,
            max_tokens=self._data.max_tokens,
            micro_tokens=self._micro_tokens,
            pad_id=self._pad_id,
            rowing=self._rowing,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
        )
        return StepLoader(dataset, StepSampler(self.trainer.global_step, self.plan.total_steps), self._data.workers)


class StepLoader(DataLoader[StepBatch]):
    """A loader that Lightning knows can be resumed. Its place is the trainer's step; its state only proves the data."""

    def __init__(self, dataset: StepDataset, sampler: StepSampler, num_workers: int) -> None:
        # A generator of its own, so that starting the loader draws nothing from the one that dropout uses.
        generator = torch.Generator()
        super().__init__(dataset, batch_size=None, sampler=sampler, num_workers=num_workers, generator=generator)
        self._digest = dataset.plan.digest

    def state_dict(self) -> dict[str, str]:
        return {"data": self._digest}

    def load_state_dict(self, state: dict[str, str]) -> None:
        if state["data"] != self._digest:
            expected = "a checkpoint of the same examples in the same order"
            raise DataError(problem("checkpoint", "one of other data", expected, "removing the cell's checkpoints"))
