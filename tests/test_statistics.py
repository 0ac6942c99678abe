from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from babeltune.errors import EvalError
from babeltune.statistics import (
    Difference,
    Floats,
    Interval,
    SeedVariance,
    aligned,
    crossed_bootstrap,
    holm,
    mcnemar,
    mean_interval,
    minimal_detectable_difference,
    noise_floor,
    paired_bootstrap,
    paired_difference,
    pooled_seed_variance,
)

# S seeds, I items

NUM_TABLES = 3000
"""Simulated tables per case: a share near 0.95 is then known to 0.004 (one standard error)."""


def table(
    rng: np.random.Generator,
    kind: Literal["graded", "right or wrong"],
    num_items: int,
    num_seeds: int,
    seed_sd: float,
    gains: tuple[float, ...],
    item_by_mix: float = 7.0,
) -> list[Floats]:
    """One cell per gain over the same items, in points; the right-or-wrong ones cut the graded ones at 50."""
    difficulty = rng.normal(scale=20, size=num_items)
    cells = []
    for gain in gains:
        by_mix = rng.normal(scale=item_by_mix, size=num_items)
        by_seed = rng.normal(scale=seed_sd, size=(num_seeds, 1))
        noise = rng.normal(scale=10, size=(num_seeds, num_items))
        cells.append(50 + gain + difficulty + by_mix + by_seed + noise)
    return cells if kind == "graded" else [np.where(cell > 50, 100.0, 0.0) for cell in cells]


def compared(cells: list[Floats]) -> Difference:
    difference = paired_difference(cells[0], cells[1], pooled_seed_variance(cells))
    assert difference is not None
    return difference


def share_covering_zero(differences: Iterator[Difference]) -> float:
    return float(np.mean([found.interval.low <= 0 <= found.interval.high for found in differences]))


@pytest.mark.parametrize("kind", ["graded", "right or wrong"])
@pytest.mark.parametrize(
    ("num_items", "num_seeds", "num_rows", "seed_sd"),
    [(50, 2, 3, 0.0), (50, 3, 6, 5.0), (150, 2, 3, 2.0), (150, 2, 6, 1.0), (400, 3, 3, 2.0), (400, 2, 6, 0.0)],
)
def test_a_95_percent_interval_of_a_difference_covers_it_about_95_times_in_100(
    kind: Literal["graded", "right or wrong"], num_items: int, num_seeds: int, num_rows: int, seed_sd: float
) -> None:
    rng = np.random.default_rng(1)
    gains = (0.0,) * num_rows
    tables = (table(rng, kind, num_items, num_seeds, seed_sd, gains) for _ in range(NUM_TABLES))
    # Over 288 such cases of 2,500 tables it was 0.935 to 0.976; two standard errors of leave.
    assert 0.926 <= share_covering_zero(compared(cells) for cells in tables) <= 0.982


@pytest.mark.parametrize("kind", ["graded", "right or wrong"])
def test_two_trainings_of_one_mix_are_rarely_called_different(kind: Literal["graded", "right or wrong"]) -> None:
    rng = np.random.default_rng(2)
    tables = [table(rng, kind, 150, 3, 2.0, (0.0,) * 4, item_by_mix=0.0) for _ in range(NUM_TABLES)]
    assert np.mean([compared(cells).p_value < 0.05 for cells in tables]) <= 0.058  # 0.05 and two standard errors


def test_an_interval_without_seeds_calls_two_trainings_of_one_mix_different_far_too_often() -> None:
    rng = np.random.default_rng(2)
    one_seed = (table(rng, "graded", 400, 1, 2.0, (0.0, 0.0), item_by_mix=0.0) for _ in range(NUM_TABLES))
    assert share_covering_zero(compared(cells) for cells in one_seed) < 0.7


@pytest.mark.parametrize("kind", ["graded", "right or wrong"])
def test_a_gain_of_15_points_is_found_nine_times_in_ten(kind: Literal["graded", "right or wrong"]) -> None:
    rng = np.random.default_rng(3)
    # Cut at 50, scores of sd 23.5 move their share by 15 points when they rise by 9.06, by 2 when they rise by 1.18.
    gain, seed_sd = (15.0, 2.0) if kind == "graded" else (9.06, 1.18)
    tables = [table(rng, kind, 150, 2, seed_sd, (gain, *(0.0,) * 5)) for _ in range(NUM_TABLES)]
    assert np.mean([compared(cells).p_value < 0.05 for cells in tables]) >= 0.9


def test_the_interval_of_a_score_covers_the_mean_over_items_and_seeds() -> None:
    rng = np.random.default_rng(4)
    tables = (table(rng, "graded", 150, 2, 2.0, (0.0,) * 4) for _ in range(NUM_TABLES))
    found = [mean_interval(cells[0], pooled_seed_variance(cells)) for cells in tables]
    covering = [interval.low <= 50 <= interval.high for interval in found if interval is not None]
    assert len(covering) == NUM_TABLES
    assert 0.93 <= np.mean(covering) <= 0.97


def test_two_runs_of_one_mix_differ_by_less_than_the_noise_floor_95_times_in_100() -> None:
    rng = np.random.default_rng(5)
    below = []
    for _ in range(NUM_TABLES):
        floor = noise_floor(pooled_seed_variance(table(rng, "graded", 150, 2, 2.0, (0.0,) * 3)))
        (runs,) = table(rng, "graded", 150, 2, 2.0, (0.0,))
        assert floor is not None
        below.append(abs(runs[0].mean() - runs[1].mean()) < floor)
    assert 0.935 <= np.mean(below) <= 0.965


def test_the_planned_difference_is_found_as_often_as_planned() -> None:
    rng = np.random.default_rng(6)
    planned = minimal_detectable_difference(150, 3, item_sd=math.sqrt(2 * 7**2 + 2 * 10**2 / 3), seed_sd=1.0)
    assert planned is not None
    tables = [table(rng, "graded", 150, 3, 1.0, (planned, *(0.0,) * 9)) for _ in range(800)]
    assert 0.72 <= np.mean([compared(cells).p_value < 0.05 for cells in tables]) <= 0.85


def test_more_items_more_seeds_and_better_known_seeds_detect_less() -> None:
    few = minimal_detectable_difference(50, 2, 20, 2, degrees_of_freedom=3)
    assert few is not None
    for better in (
        minimal_detectable_difference(100, 2, 20, 2, degrees_of_freedom=3),
        minimal_detectable_difference(50, 3, 20, 2, degrees_of_freedom=3),
        minimal_detectable_difference(50, 2, 20, 2),
    ):
        assert better is not None
        assert better < few
    assert minimal_detectable_difference(100, 2, 10, 0) == pytest.approx((1.959964 + 0.841621) * 1.0, rel=1e-6)
    assert minimal_detectable_difference(0, 2, 20, 2) is None


def test_with_one_seed_everywhere_the_interval_covers_items_only_and_is_the_paired_t() -> None:
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(7)
    a, b = rng.normal(size=(2, 1, 40))
    assert pooled_seed_variance([a, b]) is None
    found = paired_difference(a, b)
    expected = ttest_rel(a[0], b[0])
    limits = expected.confidence_interval(0.95)
    assert found is not None
    assert found.interval.covers == ("items",)
    assert found.interval.basis == "items only"
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.interval.low, found.interval.high) == pytest.approx((limits.low, limits.high))


def test_with_seeds_the_interval_says_that_it_covers_them() -> None:
    cells = table(np.random.default_rng(8), "graded", 30, 2, 2.0, (0.0, 0.0))
    assert compared(cells).interval.basis == "items and seeds"
    score = mean_interval(cells[0][:1])
    assert score is not None
    assert score.basis == "items only"


def test_a_mix_of_one_seed_borrows_the_seed_variance_of_the_other_rows() -> None:
    cells = table(np.random.default_rng(9), "graded", 100, 3, 5.0, (0.0, 0.0, 0.0))
    alone = paired_difference(cells[0][:1], cells[1][:1])
    pooled = paired_difference(cells[0][:1], cells[1][:1], pooled_seed_variance(cells))
    assert alone is not None
    assert pooled is not None
    assert pooled.interval.covers == ("items", "seeds")
    assert pooled.interval.high - pooled.interval.low > alone.interval.high - alone.interval.low


def test_the_pooled_seed_variance_is_that_of_a_two_way_layout_by_hand() -> None:
    # Seed means 1 and 3: variance 2. Deviations from item and seed means are +-1: sum 4, over 1 degree, over 2 items.
    found = pooled_seed_variance([[[0.0, 2.0], [4.0, 2.0]], [[5.0, 6.0]]])
    assert found == SeedVariance(total=2.0, residual=2.0, degrees_of_freedom=1, residual_degrees_of_freedom=1)
    assert found.effect == 0.0


def test_the_noise_of_single_items_is_not_counted_twice() -> None:
    cells = table(np.random.default_rng(10), "graded", 100, 2, 0.0, (0.0,) * 60)
    found = pooled_seed_variance(cells)
    assert found is not None
    assert found.total == pytest.approx(10**2 / 100, rel=0.4)  # 60 degrees of freedom: sd 18 %
    assert found.residual == pytest.approx(10**2 / 100, rel=0.1)
    assert found.effect < 0.4


def test_seeds_that_show_no_effect_leave_the_items_their_own_degrees_of_freedom() -> None:
    rng = np.random.default_rng(13)
    found = paired_difference(rng.normal(size=(2, 40)), rng.normal(size=(2, 40)), SeedVariance(0.9, 1.0, 3, 117))
    assert found is not None
    assert found.degrees_of_freedom == pytest.approx(39)


def test_a_seed_effect_just_above_its_noise_keeps_a_degree_of_freedom() -> None:
    found = paired_difference([[3.0, 3.0]], [[0.0, 0.0]], SeedVariance(1.0001, 1.0, 2, 2))
    assert found is not None
    assert found.degrees_of_freedom == 2
    assert found.interval.high - found.interval.low < 1


def test_cells_are_aligned_over_the_items_that_every_run_has_scored() -> None:
    one, two = aligned([{"b": 2.0, "a": 1.0}], [{"a": 3.0, "b": 4.0, "c": 5.0}, {"b": 6.0, "a": 7.0}])
    assert one.tolist() == [[1.0, 2.0]]
    assert two.tolist() == [[3.0, 4.0], [7.0, 6.0]]
    assert [cell.shape for cell in aligned([{"a": 1.0}], [{"b": 1.0}, {}])] == [(1, 0), (2, 0)]
    assert aligned() == []


def test_nothing_to_compare_is_none() -> None:
    empty = np.empty((2, 0))
    assert mean_interval(empty) is None
    assert paired_difference(empty, empty) is None
    assert paired_bootstrap([], [], 100, seed=0) is None
    assert mcnemar([], []) is None
    assert pooled_seed_variance([empty]) is None
    assert noise_floor(None) is None
    assert holm([]) == ()


def test_constant_values_give_c_to_c() -> None:
    ones, thirds = np.ones((2, 9)), np.full((3, 9), 1 / 3)
    score, difference, boot = (
        mean_interval(thirds),
        paired_difference(ones, thirds),
        paired_bootstrap([1] * 9, [0] * 9, 99, 0),
    )
    assert score is not None
    assert difference is not None
    assert boot is not None
    assert score.low == score.high == score.value == pytest.approx(1 / 3)
    assert difference.interval.low == difference.interval.high == pytest.approx(2 / 3)
    assert difference.p_value == 2.0**-8  # nine equal signs
    assert (boot.low, boot.value, boot.high) == (1.0, 1.0, 1.0)


def test_one_item_proves_nothing() -> None:
    difference = paired_difference([[100.0]], [[0.0]])
    assert difference is not None
    assert difference.p_value == 1.0
    assert difference.interval.basis == "nothing"


NUMBERS = st.one_of(st.sampled_from([0.0, 1.0, 100.0, 0.1, 1e-12]), st.floats(-1e9, 1e9))


def matrices(num_items: int) -> st.SearchStrategy[Floats]:
    return st.integers(1, 3).flatmap(lambda num_seeds: arrays(np.float64, (num_seeds, num_items), elements=NUMBERS))


@given(st.integers(1, 6).flatmap(lambda size: st.tuples(*[matrices(size)] * 3)))
def test_no_input_gives_nan_or_an_interval_without_its_value(cells: tuple[Floats, Floats, Floats]) -> None:
    difference = paired_difference(cells[0], cells[1], pooled_seed_variance(cells))
    score = mean_interval(cells[0])
    assert difference is not None
    assert score is not None
    assert 0.0 <= difference.p_value <= 1.0
    for interval in (difference.interval, score):
        assert_sound(interval)


@given(st.integers(1, 6).flatmap(lambda size: st.tuples(*[arrays(np.float64, size, elements=NUMBERS)] * 2)))
def test_no_input_gives_a_bootstrap_of_nan(runs: tuple[Floats, Floats]) -> None:
    found = paired_bootstrap(runs[0], runs[1], resamples=50, seed=0)
    assert found is not None
    assert all(map(math.isfinite, (found.low, found.value, found.high)))
    assert found.low <= found.high


def assert_sound(interval: Interval) -> None:
    assert all(map(math.isfinite, (interval.low, interval.value, interval.high)))
    assert interval.low <= interval.value <= interval.high


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(EvalError) as caught:
        mean_interval([[1.0, math.nan]])
    assert str(caught.value) == (
        "statistics: got values that are not finite; expected scored items only; try leaving out what could not be scored"
    )


@pytest.mark.parametrize("method", ["BCa", "percentile"])
def test_the_bootstrap_equals_scipy_on_paired_samples(method: Literal["BCa", "percentile"]) -> None:
    from scipy.stats import bootstrap

    a, b = np.random.default_rng(12).normal(size=(2, 60)) ** 3
    found = paired_bootstrap(a, b, 2000, seed=5, method=method)
    expected = bootstrap(
        (a, b), lambda x, y, axis: (x - y).mean(axis), paired=True, n_resamples=2000, method=method,
        vectorized=True, rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found == paired_bootstrap(a, b, 2000, seed=5, method=method)
    assert found != paired_bootstrap(a, b, 2000, seed=6, method=method)


def test_the_percentile_interval_stands_in_where_bca_is_undefined() -> None:
    a, b = [1.0, 2.0, 3.0, 4.0, 5.0], [0.0] * 5
    # All resampled means on one side of the mean: the correction of BCa is infinite.
    found = paired_bootstrap(a, b, resamples=1, seed=0)
    assert found is not None
    assert found == paired_bootstrap(a, b, resamples=1, seed=0, method="percentile")


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_test_of_the_items_only_one_run_has_right(only_a: int, only_b: int) -> None:
    from scipy.stats import binomtest

    a, b = [100] * (only_a + 3) + [0] * (only_b + 2), [0] * only_a + [100] * 3 + [100] * only_b + [0] * 2
    expected = binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected)


def test_mcnemar_refuses_graded_scores() -> None:
    with pytest.raises(EvalError) as caught:
        mcnemar([0, 50, 100], [0, 0, 100])
    assert str(caught.value) == (
        "mcnemar: got [0.0, 50.0, 100.0]; expected right or wrong items; try paired_difference for graded scores"
    )


def test_holm_multiplies_by_what_is_left_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.6, 0.9]) == (1.0, 1.0)
    assert holm([0.2]) == (0.2,)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_agrees_with_its_definition(p_values: list[float]) -> None:
    order = sorted(p_values)
    steps = [min(1.0, (len(order) - rank) * p) for rank, p in enumerate(order)]
    expected = dict(zip(order, np.maximum.accumulate(steps).tolist() if steps else [], strict=True))
    adjusted = holm(p_values)
    for p, found in zip(p_values, adjusted, strict=True):
        assert p <= found <= 1.0
        assert found == pytest.approx(expected[p])


@pytest.mark.parametrize("kind", ["graded", "right or wrong"])
def test_the_crossed_bootstrap_agrees_with_the_interval_of_tables_where_seeds_are_many(
    kind: Literal["graded", "right or wrong"],
) -> None:
    cells = table(np.random.default_rng(14), kind, 400, 30, 5.0, (6.0, 0.0))
    boot, own = crossed_bootstrap(cells[0], cells[1], 4000, seed=0), compared(cells).interval
    assert boot is not None
    assert boot.covers == own.covers == ("items", "seeds")
    assert (boot.value, boot.low, boot.high) == pytest.approx((own.value, own.low, own.high), abs=0.12 * (own.high - own.low))


def test_the_crossed_bootstrap_of_two_seeds_allows_for_seeds_and_for_less_than_the_table_does() -> None:
    cells = table(np.random.default_rng(15), "graded", 400, 2, 5.0, (0.0, 0.0, 0.0))
    boots = [crossed_bootstrap(cells[0][:seeds], cells[1][:seeds], 2000, seed=0) for seeds in (1, 2)]
    alone, both = (boot.high - boot.low for boot in boots if boot is not None)
    own = compared(cells).interval
    assert boots[0] is not None
    assert boots[0].covers == ("items",)
    assert alone < both < own.high - own.low


def test_the_crossed_bootstrap_of_one_seed_is_the_percentile_bootstrap_of_items() -> None:
    a, b = np.random.default_rng(16).normal(size=(2, 1, 80))
    boot, other = crossed_bootstrap(a, b, 20_000, seed=0), paired_bootstrap(a[0], b[0], 20_000, seed=1, method="percentile")
    assert boot is not None
    assert other is not None
    assert (boot.low, boot.high) == pytest.approx((other.low, other.high), abs=0.01)
    assert boot == crossed_bootstrap(a, b, 20_000, seed=0)
    assert crossed_bootstrap(np.empty((2, 0)), np.empty((2, 0)), 10, seed=0) is None


def test_the_first_of_several_comparisons_is_found_at_a_share_of_the_level() -> None:
    one, three = (minimal_detectable_difference(100, 2, 10, 0, comparisons=number) for number in (1, 3))
    assert one == pytest.approx(1.959964 + 0.841621)
    assert three == pytest.approx(2.393980 + 0.841621)
