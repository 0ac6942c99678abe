"""How sure a score and a difference between two mixes are.

A cell of a table is one mix, trained with a few seeds and evaluated on the same items each time: a matrix of values,
seeds by items. Two things vary: which items the suite happens to hold, and which seed a model happened to be trained
with. An interval that forgets the second calls two trainings of one mix different, up to every second time.

Items are compared in pairs. Seeds are not: seed 0 of one mix and seed 0 of another share nothing but a number.
The two or three seeds of one mix say little about how much seeds matter, so a table pools that over its rows.
"""

# S seeds, I items

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from babeltune.errors import EvalError, problem

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
"""The level of every interval."""

_ROUNDING = 1e-12
"""A spread below this share of the largest value is rounding: the values count as constant."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its 95 % confidence interval."""

    value: float
    low: float
    high: float
    num_items: int
    num_seeds: int
    """Trainings of the mix; for a difference, of the mix that has fewer."""
    covers: tuple[Literal["items", "seeds"], ...]
    """What the interval allows for: other items, other seeds. Empty when neither could be estimated: low == high."""

    @property
    def basis(self) -> str:
        """`covers` in words for a table's footnote: `items and seeds`, `items only`."""
        match self.covers:
            case ():
                return "nothing"
            case (only,):
                return f"{only} only"
            case _:
                return " and ".join(self.covers)


@dataclass(frozen=True, slots=True)
class Difference:
    """One mix minus another on the same items."""

    interval: Interval
    p_value: float
    """Two-sided, of no difference. Below 0.05 where the interval leaves out zero."""
    degrees_of_freedom: float


@dataclass(frozen=True, slots=True)
class SeedVariance:
    """How much a mix's score moves when only the seed changes, pooled over mixes."""

    total: float
    """Variance of one training's score on fixed items: what another training of the mix would show on this suite."""
    residual: float
    """The part of `total` that comes from single items flipping. It shrinks with more items and is also in the spread
    over items, so an interval takes it from there and only the rest, `effect`, from here."""
    degrees_of_freedom: int
    residual_degrees_of_freedom: int

    @property
    def effect(self) -> float:
        """Variance of the shift a seed gives to all items alike; zero where `total` is no more than its residual."""
        return max(self.total - self.residual, 0.0)


def aligned(*cells: Sequence[Mapping[str, float]]) -> list[Floats]:
    """Each cell as seeds by items, over the items that every seed of every cell has scored, in the order of their ids.

    A cell is one mapping from item id to value per seed, as `Score.items` keeps them.

    >>> aligned([{"a": 1.0, "b": 0.0}], [{"b": 1.0, "a": 1.0}, {"a": 0.0}])
    [array([[1.]]), array([[1.],
           [0.]])]
    """
    runs = [set(run) for cell in cells for run in cell]
    shared = sorted(set.intersection(*runs)) if runs else []
    return [np.array([[run[item] for item in shared] for run in cell], dtype=np.float64) for cell in cells]


def mean_interval(values_SI: npt.ArrayLike, seed_variance: SeedVariance | None = None) -> Interval | None:
    """The mean of a cell. Without `seed_variance` the cell's own seeds serve; None when there is no item."""
    values = _matrix(values_SI)
    if values.size == 0:
        return None
    seeds = seed_variance or pooled_seed_variance([values])
    spread = _spread(values.mean(axis=0), 1 / len(values), seeds, scale=float(np.abs(values).max()))
    return spread.interval(num_seeds=len(values))


def paired_difference(a_SI: npt.ArrayLike, b_SI: npt.ArrayLike, seed_variance: SeedVariance | None = None) -> Difference | None:
    """Mix `a` minus mix `b`, over items in pairs and over seeds; None when there is no item.

    With d_i the difference of item i between the means over seeds,

        variance = var(d_i) / I + effect * (1 / S_a + 1 / S_b)

    and the t quantile has Satterthwaite's degrees of freedom (Satterthwaite 1946, Biometrics Bulletin 2:110). The
    noise of single items is taken out of the seed effect, since var(d_i) holds it already; the degrees of freedom count
    the uncertainty of that too. Without `seed_variance` the seeds of these two mixes serve; when
    neither has two, the interval covers items only.
    """
    a, b = _matrix(a_SI), _matrix(b_SI)
    assert a.shape[1] == b.shape[1], f"items of the two mixes are not aligned: {a.shape[1]} and {b.shape[1]}"
    if a.size == 0 or b.size == 0:
        return None
    seeds = seed_variance or pooled_seed_variance([a, b])
    scale = float(max(np.abs(a).max(), np.abs(b).max()))
    spread = _spread(a.mean(axis=0) - b.mean(axis=0), 1 / len(a) + 1 / len(b), seeds, scale)
    interval = spread.interval(num_seeds=min(len(a), len(b)))
    return Difference(interval, spread.p_value(), spread.degrees_of_freedom)


def pooled_seed_variance(cells: Sequence[npt.ArrayLike]) -> SeedVariance | None:
    """The seed variance that the rows of a table share; None when no row has two seeds.

    The mean squares of a two-way layout, seeds by items, summed over mixes (Searle, Casella and McCulloch 1992,
    Variance Components, chapter 4). It supposes that seeds matter about equally to every mix of the table.
    """
    total = residual = 0.0
    degrees = residual_degrees = 0
    for values in map(_matrix, cells):
        num_seeds, num_items = values.shape
        if num_seeds < 2 or num_items == 0:
            continue
        seed_shifts = values.mean(axis=1, keepdims=True) - values.mean()
        noise = values - values.mean(axis=0) - seed_shifts
        total += float(np.sum(seed_shifts**2))
        degrees += num_seeds - 1
        if num_items > 1:
            residual += float(np.sum(noise**2)) / (num_items * (num_items - 1))
            residual_degrees += (num_seeds - 1) * (num_items - 1)
    if degrees == 0:
        return None
    return SeedVariance(total / degrees, residual / degrees, degrees, residual_degrees)


def paired_bootstrap(
    a_I: npt.ArrayLike, b_I: npt.ArrayLike, resamples: int, seed: int, method: Literal["BCa", "percentile"] = "BCa"
) -> Interval | None:
    """The difference of two runs by resampling items in pairs (Koehn 2004, EMNLP; BCa: Efron 1987, JASA 82:171).

    For one run against another, where no t quantile is wanted; it knows nothing of seeds. Constant differences give
    [c, c], where BCa alone gives NaN; where its correction is undefined the percentile interval stands in. None when
    there is no item.
    """
    from scipy.stats import bootstrap  # 0.6 s

    a, b = _matrix(np.asarray(a_I)[None]), _matrix(np.asarray(b_I)[None])
    assert a.shape == b.shape, f"items of the two runs are not aligned: {a.shape[1]} and {b.shape[1]}"
    if a.size == 0:
        return None
    differences = (a - b)[0]
    value, num_items = float(differences.mean()), len(differences)
    low = high = value
    if np.ptp(differences) > _ROUNDING * max(np.abs(a).max(), np.abs(b).max()):
        for attempt in dict.fromkeys((method, "percentile")):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # scipy warns of the NaN that is looked for below
                limits = bootstrap(
                    (differences,),
                    np.mean,
                    n_resamples=resamples,
                    batch=max(1, 10**6 // num_items),
                    confidence_level=CONFIDENCE,
                    method=attempt,
                    rng=np.random.default_rng(seed),
                ).confidence_interval
            if np.isfinite(limits).all():
                low, high = float(limits.low), float(limits.high)
                break
    return Interval(value, low, high, num_items, 1, ("items",) if num_items > 1 else ())


def crossed_bootstrap(a_SI: npt.ArrayLike, b_SI: npt.ArrayLike, resamples: int, seed: int) -> Interval | None:
    """The difference of two mixes by resampling items in pairs and each mix's seeds apart (Owen 2007, Ann. Appl. Stat. 1:386).

    Percentiles of the resampled means. Of S seeds S - 1 are drawn, which makes the variance over seeds unbiased (Rao and Wu
    1988, JASA 83:231). It supposes nothing of how values are spread, but two seeds tell it little: it knows no other row's, and
    no t. `paired_difference` is what tables use; the two agree where seeds are many. A mix of one seed leaves seeds out. None
    when there is no item.
    """
    a, b = _matrix(a_SI), _matrix(b_SI)
    assert a.shape[1] == b.shape[1], f"items of the two mixes are not aligned: {a.shape[1]} and {b.shape[1]}"
    if a.size == 0 or b.size == 0:
        return None
    num_items = a.shape[1]
    rng, batch = np.random.default_rng(seed), max(1, 10**6 // num_items)
    means = []
    for start in range(0, resamples, batch):
        count = min(batch, resamples - start)
        items = rng.multinomial(num_items, np.full(num_items, 1 / num_items), size=count) / num_items
        drawn = [_seed_weights(rng, len(cell), count) @ cell for cell in (a, b)]
        means.append(((drawn[0] - drawn[1]) * items).sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    value = float(a.mean() - b.mean())
    varied: tuple[tuple[Literal["items", "seeds"], bool], ...] = (("items", num_items > 1), ("seeds", min(len(a), len(b)) > 1))
    covers = tuple(name for name, is_varied in varied if is_varied)
    return Interval(value, min(float(low), value), max(float(high), value), num_items, min(len(a), len(b)), covers)


def _seed_weights(rng: np.random.Generator, num_seeds: int, count: int) -> Floats:
    """How much of each seed is in each resample."""
    if num_seeds == 1:
        return np.ones((count, 1))
    return rng.multinomial(num_seeds - 1, np.full(num_seeds, 1 / num_seeds), size=count) / (num_seeds - 1)


def mcnemar(a_I: npt.ArrayLike, b_I: npt.ArrayLike) -> float | None:
    """Exact two-sided p-value that two runs are right equally often (McNemar 1947, Psychometrika 12:153).

    Of the items that exactly one run has right, each is as likely either's: p = min(1, 2 * P(X <= the fewer)) with X
    binomial at one half. A value is zero, or one other number for right (1 or 100). None when there is no item.
    """
    from scipy.special import bdtr

    a, b = _matrix(np.asarray(a_I)[None])[0], _matrix(np.asarray(b_I)[None])[0]
    assert a.shape == b.shape, f"items of the two runs are not aligned: {len(a)} and {len(b)}"
    kinds = np.unique(np.concatenate([a, b]))
    if np.count_nonzero(kinds) > 1:
        raise EvalError(problem("mcnemar", kinds.tolist(), "right or wrong items", "paired_difference for graded scores"))
    if a.size == 0:
        return None
    only_a, only_b = int(np.sum((a != 0) & (b == 0))), int(np.sum((a == 0) & (b != 0)))
    return min(1.0, float(2 * bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """The p-values, adjusted for being many and in their own order (Holm 1979, Scand. J. Statist. 6:65).

    The k-th smallest of m becomes the largest of (m - j + 1) * p_j over j <= k, at most 1. Comparing these with 0.05
    keeps the chance of any false finding in the table below 0.05, whatever the tests share.

    >>> holm([0.04, 0.01, 0.03])
    (0.06, 0.03, 0.06)
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return tuple(adjusted)


def verdict(difference: Difference, p_value: float, higher_is_better: bool = True) -> str:
    """What may be said of a difference once the table's other comparisons are allowed for (Holm)."""
    if p_value >= 0.05:
        return "not told apart"
    return "better" if (difference.interval.value > 0) == higher_is_better else "worse"


def noise_floor(seed_variance: SeedVariance | None, num_seeds: int = 1) -> float | None:
    """How far apart two results of one mix on one suite lie by their seeds alone, in 95 of 100 cases.

    t * sqrt(2 * total / num_seeds), for means over `num_seeds` trainings each. A difference below it says nothing about
    the mix. None when no seed variance is known.
    """
    if seed_variance is None:
        return None
    quantile = _t_quantile((1 + CONFIDENCE) / 2, seed_variance.degrees_of_freedom)
    return quantile * math.sqrt(2 * seed_variance.total / num_seeds)


def minimal_detectable_difference(
    num_items: int,
    num_seeds: int,
    item_sd: float,
    seed_sd: float,
    power: float = 0.8,
    degrees_of_freedom: float = math.inf,
    comparisons: int = 1,
) -> float | None:
    """The true difference that a comparison finds with this power; None without items or seeds.

    (t_0.975 + t_power) * sqrt(item_sd^2 / I + 2 * seed_sd^2 / S) (Cohen 1988, chapter 2, with Satterthwaite's degrees). Among
    several `comparisons` the first that Holm's correction lets through is found at 0.05 / comparisons, and t_0.975 rises so.
    `item_sd` is that of the per-item differences between two cells' means over seeds, `seed_sd` that of
    `SeedVariance.effect`, known with `degrees_of_freedom`: say 3 for three mixes of two seeds. A plan, not a promise.
    """
    if num_items < 1 or num_seeds < 1:
        return None
    seed_part = 2 * seed_sd**2 / num_seeds
    variance = item_sd**2 / num_items + seed_part
    degrees = degrees_of_freedom * (variance / seed_part) ** 2 if seed_part else math.inf
    level = 1 - (1 - CONFIDENCE) / 2 / comparisons
    return (_t_quantile(level, degrees) + _t_quantile(power, degrees)) * math.sqrt(variance)


@dataclass(frozen=True, slots=True)
class _Spread:
    """A mean over items, its standard error and what that is made of."""

    mean: float
    standard_error: float
    degrees_of_freedom: float
    num_items: int
    covers: tuple[Literal["items", "seeds"], ...]
    is_zero: bool
    """Whether the mean is zero but for rounding."""

    def interval(self, num_seeds: int) -> Interval:
        quantile = _t_quantile((1 + CONFIDENCE) / 2, self.degrees_of_freedom)
        low, high = self.mean - quantile * self.standard_error, self.mean + quantile * self.standard_error
        return Interval(self.mean, low, high, self.num_items, num_seeds, self.covers)

    def p_value(self) -> float:
        """From t; where nothing varies, the sign test of I equal differences, so that one item proves nothing."""
        from scipy.special import stdtr

        if self.is_zero and self.standard_error == 0:
            return 1.0
        if self.standard_error == 0:
            return float(2.0 ** (1 - self.num_items))
        return float(2 * stdtr(self.degrees_of_freedom, -abs(self.mean) / self.standard_error))


def _spread(items_I: Floats, share: float, seeds: SeedVariance | None, scale: float) -> _Spread:
    """`share` is how much of one training's seed variance the mean holds: 1 / S, for a difference 1 / S_a + 1 / S_b."""
    num_items = len(items_I)
    variance = 0.0
    covers: list[Literal["items", "seeds"]] = []
    terms: list[tuple[float, int]] = []
    if num_items > 1:
        variance += float(items_I.var(ddof=1)) / num_items
        covers.append("items")
        terms.append((variance, num_items - 1))
    if seeds is not None:
        variance += share * seeds.effect
        covers.append("seeds")
    if seeds is not None and seeds.effect > 0:
        terms.append((share * seeds.total, seeds.degrees_of_freedom))
        terms.append((share * seeds.residual, seeds.residual_degrees_of_freedom))
    mean = float(items_I.mean())
    rounding = _ROUNDING * scale
    varies = variance > rounding**2
    return _Spread(
        mean=mean,
        standard_error=math.sqrt(variance) if varies else 0.0,
        degrees_of_freedom=_satterthwaite(variance, terms) if varies else math.inf,
        num_items=num_items,
        covers=tuple(covers),
        is_zero=abs(mean) <= rounding,
    )


def _satterthwaite(variance: float, terms: Sequence[tuple[float, int]]) -> float:
    """Degrees of freedom of a sum of mean squares, each given with its own; never fewer than the least of them."""
    known = [(term / variance, degrees) for term, degrees in terms if term > 0 and degrees]
    return max(1 / sum(term**2 / degrees for term, degrees in known), min(degrees for _, degrees in known))


def _t_quantile(probability: float, degrees_of_freedom: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, probability))


def _matrix(values: npt.ArrayLike) -> Floats:
    matrix = np.asarray(values, dtype=np.float64)
    assert matrix.ndim == 2, f"values are seeds by items, not of shape {matrix.shape}"
    if not np.isfinite(matrix).all():
        raise EvalError(
            problem("statistics", "values that are not finite", "scored items only", "leaving out what could not be scored")
        )
    return matrix
