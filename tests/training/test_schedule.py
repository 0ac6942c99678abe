"""The learning rate of every step, against numbers worked out by hand and against transformers."""

from __future__ import annotations

import pytest
import torch
from transformers import get_scheduler

from babeltune.options import OptimizerConfig, Schedule
from babeltune.training.module import learning_rate, step_seed


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (Schedule.constant, [0.5, 1, 1, 1, 1, 1]),
        (Schedule.linear, [0.5, 1, 1, 0.75, 0.5, 0.25]),
        (Schedule.cosine, [0.5, 1, 1, 0.853553, 0.5, 0.146447]),
    ],
)
def test_six_steps_with_two_of_warm_up(schedule: Schedule, rates: list[float]) -> None:
    config = OptimizerConfig(learning_rate=1.0, schedule=schedule, warmup_steps=2)
    assert [round(learning_rate(config, step, 6), 6) for step in range(6)] == rates


def test_warm_up_is_a_share_of_the_steps_unless_it_is_counted() -> None:
    share = OptimizerConfig(learning_rate=1.0, warmup_fraction=0.1)
    counted = OptimizerConfig(learning_rate=1.0, warmup_fraction=0.9, warmup_steps=10)
    assert [learning_rate(share, step, 100) for step in range(100)] == [learning_rate(counted, step, 100) for step in range(100)]


@pytest.mark.parametrize("warmup", [0, 1, 7, 39, 50])
@pytest.mark.parametrize("schedule", list(Schedule))
def test_the_rate_is_that_of_transformers_with_the_warm_up_a_step_ahead(schedule: Schedule, warmup: int) -> None:
    total, peak = 40, 3e-4
    config = OptimizerConfig(learning_rate=peak, schedule=schedule, warmup_steps=warmup)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    name = "constant_with_warmup" if schedule is Schedule.constant else schedule.value
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    theirs = []
    for _ in range(total + 1):
        theirs.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    ours = [learning_rate(config, step, total) for step in range(total)]
    wanted = [theirs[step + 1] if step < warmup else theirs[step] for step in range(total)]
    assert ours == pytest.approx(wanted, rel=1e-12, abs=1e-18)  # the same formula, its operations in another order
    assert min(ours) > 0, "no step is spent on changing nothing"


def test_no_two_steps_ranks_or_seeds_share_their_randomness() -> None:
    places = [(seed, step, rank) for seed in (0, 1) for step in range(50) for rank in range(4)]
    assert len({step_seed(*place) for place in places}) == len(places)
    assert step_seed(0, 0, 0) == 449783425300024469
