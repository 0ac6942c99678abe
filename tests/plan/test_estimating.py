"""From a few steps to a run: which are chosen, how they are laid out to be timed, and what is made of what they took."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from babeltune.config import compose
from babeltune.data.batching import Examples, Plan
from babeltune.options import RunConfig
from babeltune.plan import advice, calibrations, estimating, profiles, shapes
from babeltune.plan.calibrating import Chosen
from babeltune.plan.calibrations import Work
from babeltune.plan.profiles import Steps, Weighing
from babeltune.plan.units import in_bytes, in_seconds
from babeltune.planned import PARTS, Facts


class Ready:
    """Rows whose tokens say which row they are of."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths: NDArray[np.int32] = np.asarray(lengths, np.int32)
        self.target_counts: NDArray[np.int32] = self.lengths // 2

    def __getitem__(self, row: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        length = int(self.lengths[row])
        return np.full(length, row, np.int32), np.arange(length) >= length - length // 2


LENGTHS = [4 + 7 * number % 50 for number in range(70)]


@pytest.fixture
def examples() -> Examples:
    return Examples([(Ready(LENGTHS), np.arange(len(LENGTHS), dtype=np.int32))])


@pytest.fixture
def plan(examples: Examples) -> Plan:
    return Plan(examples.lengths, examples.target_counts, seed=3, epochs=2, global_batch=8)


def config(*overrides: str) -> RunConfig:
    return compose(["data=toy_zh", "model=tiny_fresh", *overrides])


def test_a_plan_knows_every_step_before_it_is_done(plan: Plan) -> None:
    steps = profiles.steps_of(plan)
    assert len(steps) == plan.total_steps == 18
    assert steps.tokens == 2 * sum(LENGTHS)
    assert steps.targets == 2 * sum(length // 2 for length in LENGTHS)
    assert steps.examples_K.tolist() == [8] * 8 + [6] + [8] * 8 + [6]


def test_the_step_with_the_most_tokens_is_timed_first_and_no_smaller_last_one_is(plan: Plan) -> None:
    steps = profiles.steps_of(plan)
    chosen = profiles.chosen_steps(steps, Weighing(10, 3))
    full = steps.tokens_K[steps.examples_K == 8]
    assert steps.tokens_K[chosen[0]] == full.max()
    assert all(steps.examples_K[number] == 8 for number in chosen)
    assert len(chosen) == len(set(chosen)) <= 6


def test_what_is_timed_are_the_examples_of_the_chosen_steps(examples: Examples, plan: Plan) -> None:
    wanted = profiles.examples_of_steps(plan, [5, 0, 12], 8)
    assert [sorted(step) for step in wanted] == [sorted(plan.step(number).tolist()) for number in (5, 0, 12)]
    chosen = Chosen(examples, wanted, seed=3)
    timed = Plan(chosen.lengths, chosen.target_counts, seed=3, epochs=1, global_batch=8)
    for number, step in enumerate(wanted):
        rows = sorted(int(chosen[int(place)][0][0]) for place in timed.step(number))
        assert rows == sorted(step)


def test_a_step_that_is_done_in_part_has_its_longest_example(plan: Plan) -> None:
    (step,) = profiles.examples_of_steps(plan, [4], 3)
    assert len(step) == 3
    assert plan.lengths[step].max() == plan.lengths[plan.step(4)].max()


def told(*cpu_seconds: float, stretch: float = 1.0) -> dict[str, Any]:
    steps = [{"tokens": 100, "targets": 40, "cpu_seconds": one, "seconds": one * stretch} for one in cpu_seconds]
    return {"around": [{"seconds": 1.0, "cpu_seconds": 1.0}, {"seconds": 0.5, "cpu_seconds": 0.5}], "steps": steps}


def test_a_run_takes_what_its_steps_compute_and_once_what_the_first_takes_longer() -> None:
    steps = Steps(*np.asarray([[8, 200, 80, 50]] * 10, np.int64).T)
    found = estimating.duration(told(5.0, 2.0, 2.0), steps, Weighing(1, 1), config())
    assert found.cpu == pytest.approx(1.5 + 3.0 + 10 * 4.0)
    assert found.wall == pytest.approx(found.cpu)


def test_a_busy_machine_does_not_make_a_plan_longer_where_one_step_was_left_alone() -> None:
    steps = Steps(*np.asarray([[8, 100, 40, 50]] * 10, np.int64).T)
    busy = told(2.0, 2.0, 2.0, stretch=3.0)
    busy["steps"][1]["seconds"] = 2.0
    assert estimating.duration(busy, steps, Weighing(1, 1), config()).wall == pytest.approx(1.5 + 20.0)


def test_what_grows_with_depth_grows_by_the_layer() -> None:
    few = {"loading": 1.0, "memory": {"process": 500, "weights": 100}, "steps": [{"seconds": 2.0, "tokens": 10}]}
    more = {"loading": 2.0, "memory": {"process": 500, "weights": 160}, "steps": [{"seconds": 3.0, "tokens": 10}]}
    assert estimating.at_depth(few, more, (2, 4), 32) == {
        "loading": 16.0,
        "memory": {"process": 500, "weights": 1000},
        "steps": [{"seconds": 17.0, "tokens": 10}],
    }


def test_replies_are_reckoned_as_long_as_they_may_be() -> None:
    timed = {"evaluation": {"items": 32, "batch": 1.0, "token": 0.1, "references": 3.2}}
    asked = config("decoding.max_new_tokens=20", "scale=paper")
    assert estimating.judging(timed, 40, asked) == pytest.approx(2 * (1.0 + 2.0) + 3.2 * 40 / 32)


def facts(**changes: Any) -> Facts:
    memory = dict.fromkeys(PARTS, 0) | {"weights": 4_000_000_000, "activations": 2_000_000_000, "gradients": 10, "optimizer": 20}
    return dataclasses.replace(Facts(memory=memory, free=5_000_000_000), **changes)


def test_a_cell_that_will_not_fit_is_told_what_to_change() -> None:
    asked = config("data.max_tokens=256", "trainer.micro_tokens=4096", "scale=paper")
    (said,) = advice.warnings(facts(), asked)
    assert said.startswith("needs 6.00 GB where this machine has 5.00 GB free; try precision=nf4 (about 3.00 GB less)")
    assert "trainer.micro_tokens=2048 (about 1.00 GB less)" in said
    assert list(advice.warnings(facts(free=7_000_000_000), asked)) == []
    assert list(advice.warnings(facts(free=None), asked)) == []


def test_all_weights_trained_is_the_first_thing_to_change() -> None:
    full = facts(memory=dict.fromkeys(PARTS, 0) | {"weights": 4 * 10**9, "gradients": 4 * 10**9, "optimizer": 8 * 10**9})
    (said,) = advice.warnings(full, config("adapter=none"))
    assert "try adapter=lora (about 12.00 GB less)" in said


def test_a_model_that_is_too_large_is_not_calibrated() -> None:
    shape = shapes.AutoConfig.for_model("llama")  # the 7B
    steps = Steps(*np.asarray([[32, 8000, 4000, 500]] * 9, np.int64).T)
    work = Work(config(), shape, None, shapes.weighing(shape), _StepsAlone(), steps, 0)
    found = calibrations.calibrate(work, cache=None)  # type: ignore[arg-type]  # nothing is looked up
    assert found.calibration is None
    assert found.how in ("not calibrated: its steps take too long on this machine", "not calibrated: too large for this machine")
    memory = estimating.by_formula(config(), {"trainable": 4_194_304, "total": 6_742_609_920}, 0, shape)
    assert memory["weights"] == 4 * 6_738_415_616
    assert memory["optimizer"] == 8 * 4_194_304


class _StepsAlone:
    """A plan of equal steps."""

    lengths = np.full(288, 250, np.int64)

    def step(self, number: int) -> NDArray[np.int64]:
        return np.arange(32) + 32 * number


@pytest.mark.parametrize(("size", "words"), [(250_000, "0.25 MB"), (768e6, "768 MB"), (1.34e9, "1.34 GB")])
def test_bytes_are_said_in_three_figures(size: float, words: str) -> None:
    assert in_bytes(size) == words


@pytest.mark.parametrize(("seconds", "words"), [(8.21, "8.2 s"), (275, "275 s"), (5000, "83 min"), (20_000, "5.6 h")])
def test_seconds_are_said_as_exactly_as_they_are_known(seconds: float, words: str) -> None:
    assert in_seconds(seconds) == words
