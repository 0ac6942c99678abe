"""How many rows of each source, exactly, and always the same ones."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from babeltune import mixchecks
from babeltune.data.mixing import Pool, apportion, mix, tempered
from babeltune.errors import ConfigError, DataError
from babeltune.options import DataConfig, SourceConfig, TakeConfig, TemperatureOver


def pool(source, lengths=None, **languages):
    """`pool("a", zh=3, vi=2)`: three rows of Chinese, then two of Vietnamese, of 10 tokens each unless `lengths` says otherwise."""
    codes = np.repeat(np.arange(len(languages)), list(languages.values())).astype(np.uint16)
    return Pool(source, tuple(languages), codes, np.full(len(codes), 10, np.int32) if lengths is None else lengths)


def long_and_short(source, rows, seed=0, **languages):
    """Rows of 1 to 400 tokens."""
    return pool(source, np.random.default_rng(seed).integers(1, 400, rows).astype(np.int32), **(languages or {"zh": rows}))


def take(pools, seed=0, takes=None, **options):
    data = DataConfig(name="mix", take={name: TakeConfig(**how) for name, how in (takes or {}).items()}, **options)
    return {taken.source: taken for taken in mix(pools, data, seed)}


def sizes(taken):
    return {source: len(own.indices) for source, own in taken.items()}


def tokens(pools, taken):
    return {own.source: int(own.lengths[taken[own.source].indices].sum()) for own in pools}


def wrong(takes=None, sources=("a", "b"), **options):
    """What composing a mix says is wrong."""
    settings = {"sources": {name: SourceConfig(name=name, language="zh") for name in sources}} | options
    data = DataConfig(name="mix", take={name: TakeConfig(**how) for name, how in (takes or {}).items()}, **settings)
    return list(mixchecks.check(data))


def repeats(taken):
    """How often each row appears: the counts, without the rows."""
    return sorted(Counter(taken.indices.tolist()).values())


def test_a_mix_keeps_every_row_exactly_once():
    taken = take([pool("a", zh=5), pool("b", vi=3)])
    assert taken["a"].indices.tolist() == [0, 1, 2, 3, 4]
    assert taken["b"].indices.tolist() == [0, 1, 2]
    assert taken["a"].indices.dtype == np.int32
    assert [own.asked for own in taken.values()] == ["all", "all"]


@given(st.integers(1, 40), st.integers(1, 200), st.integers(0, 3))
def test_a_count_is_met_exactly_in_whole_passes_and_a_remainder(size, count, seed):
    taken = take([pool("a", zh=size)], seed, {"a": {"count": count}})["a"]
    assert len(taken.indices) == count
    assert set(repeats(taken)) <= {count // size, -(-count // size)}
    assert min(taken.indices) >= 0
    assert max(taken.indices) < size
    assert (np.diff(taken.indices) >= 0).all()


@pytest.mark.parametrize(("fraction", "rows"), [(0.5, 5), (0.25, 3), (0.3, 3), (1.0, 10), (1.5, 15), (2.0, 20), (0.05, 1)])
def test_a_fraction_is_rounded_to_whole_rows(fraction, rows):
    taken = take([pool("a", zh=10)], takes={"a": {"fraction": fraction}})["a"]
    assert len(taken.indices) == rows
    assert taken.asked == f"fraction {str(fraction).removesuffix('.0')}"


def test_weights_set_proportions_without_repeating_a_row():
    pools = [pool("a", zh=100), pool("b", vi=40), pool("c", en=1000)]
    taken = take(pools, takes={"a": {"weight": 1}, "b": {"weight": 2}})
    assert sizes(taken) == {"a": 20, "b": 40, "c": 1000}
    assert repeats(taken["b"]) == [1] * 40
    assert taken["b"].asked == "weight 2"


def test_weights_are_tenths_where_they_say_so():
    pools = [pool("a", zh=10), pool("b", vi=20), pool("c", en=70)]
    assert sizes(take(pools, takes={"a": {"weight": 0.1}, "b": {"weight": 0.2}, "c": {"weight": 0.7}})) == {
        "a": 10,
        "b": 20,
        "c": 70,
    }


@given(st.lists(st.tuples(st.integers(50, 300), st.floats(1, 10)), min_size=1, max_size=5))
def test_weighted_rows_are_never_repeated_and_one_source_is_nearly_used_up(sources):
    pools = [pool(str(place), zh=size) for place, (size, _) in enumerate(sources)]
    takes = {str(place): {"weight": weight} for place, (_, weight) in enumerate(sources)}
    taken = take(pools, takes=takes)
    used = [len(own.indices) for own in taken.values()]
    assert all(count <= size for count, (size, _) in zip(used, sources, strict=True))
    whole = sum(weight for _, weight in sources)
    for count, (_, weight) in zip(used, sources, strict=True):
        assert abs(count - sum(used) * weight / whole) < 1


def test_a_quota_limits_a_language_over_all_its_sources_alike():
    taken = take([pool("a", zh=60, vi=10), pool("b", zh=30), pool("c", en=7)], quota={"zh": 9})
    assert sizes(taken) == {"a": 16, "b": 3, "c": 7}
    assert int((taken["a"].indices >= 60).sum()) == 10, "the other language stays whole"


def test_a_quota_above_what_there_is_changes_nothing():
    assert sizes(take([pool("a", zh=6)], quota={"zh": 7})) == {"a": 6}


def test_most_rows_keep_the_proportions_of_sources_and_languages():
    taken = take([pool("a", zh=400, vi=200), pool("b", en=400)], max_rows=100)
    assert sizes(taken) == {"a": 60, "b": 40}
    assert int((taken["a"].indices < 400).sum()) == 40


def test_limits_leave_repeats_even():
    taken = take([pool("a", zh=10)], takes={"a": {"count": 40}}, max_rows=25)["a"]
    assert repeats(taken) == [2] * 5 + [3] * 5


def test_the_same_seed_draws_the_same_rows_and_another_seed_others():
    pools = [pool("a", zh=1000)]
    draws = [take(pools, seed, {"a": {"count": 100}})["a"].indices.tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_the_draw_of_seed_0_is_the_one_it_has_always_been():
    taken = take([pool("a", zh=1000)], takes={"a": {"count": 5}})["a"]
    assert taken.indices.tolist() == [267, 382, 551, 690, 750]


def test_a_source_that_joins_does_not_change_what_is_drawn_from_another():
    one, other = pool("a", zh=1000), pool("b", vi=500)
    takes = {"a": {"count": 100}}
    alone = take([one], takes=takes)["a"].indices.tolist()
    assert take([other, one], takes=takes)["a"].indices.tolist() == alone
    first, second = take([one, pool("b", zh=1000)], takes=takes | {"b": {"count": 100}}).values()
    assert first.indices.tolist() != second.indices.tolist()


def test_a_larger_count_contains_the_smaller():
    small, large = (take([pool("a", zh=1000)], takes={"a": {"count": n}})["a"].indices for n in (50, 100))
    assert set(small) < set(large)


@given(st.integers(0, 500), st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_an_apportionment_is_exact_and_nowhere_off_by_one_or_more(total, shares):
    counts = apportion(total, shares)
    assert sum(counts) == total
    assert all(abs(count - Fraction(total * share, sum(shares))) < 1 for count, share in zip(counts, shares, strict=True))


def test_an_empty_source_is_refused():
    with pytest.raises(DataError) as caught:
        take([pool("a", zh=3), pool("b")])
    assert str(caught.value) == (
        "data.sources.b: got no usable rows; expected at least one; "
        "try looking at the reasons of its drops in the log, or leaving the source out"
    )


def test_a_mix_of_nothing_is_refused():
    with pytest.raises(DataError) as caught:
        take([pool("a", zh=3)], quota={"zh": 0})
    assert str(caught.value) == "data: got a mix of no rows; expected at least one; try a larger data.max_rows or data.quota"
    with pytest.raises(DataError, match=r"data\.sources: got no sources"):
        take([])


def test_a_share_of_less_than_a_row_is_refused():
    with pytest.raises(DataError) as caught:
        take([pool("a", zh=3)], takes={"a": {"fraction": 0.1}})
    assert str(caught.value) == (
        "data.take.a: got fraction 0.1, which is less than one row; expected at least one row; "
        "try a larger share or leaving the source out"
    )


def test_a_quota_on_a_language_of_no_row_is_refused():
    with pytest.raises(ConfigError) as caught:
        take([pool("a", zh=3)], quota={"zh": 1, "ch": 2})
    assert str(caught.value) == "data.quota.ch: got no row in it; expected a language of the mix (zh); try zh"


def test_every_problem_of_a_mix_is_told_at_once():
    takes = {"alpaca_vn": {"count": 1}, "a": {"count": 0, "weight": 1.0}, "b": {"fraction": float("nan")}}
    assert wrong(takes, quota={"fr": 1, "zh": -1}) == [
        "data.take.alpaca_vn: got 'alpaca_vn'; expected a source of the mix; try a, b",
        "data.take.a: got count and weight; expected one of count, fraction, weight and tokens; try leaving one",
        "data.take.a.count: got 0; expected a number above zero; try null to take every row, or leaving the source out",
        "data.take.b.fraction: got nan; expected a number above zero; try null to take every row, or leaving the source out",
        "data.quota.fr: got 'fr'; expected a language of the mix (zh); try ~data.quota.fr",
        "data.quota.zh: got -1; expected 0 or more rows; try ~data.quota.zh to take every row",
    ]


def test_token_shares_of_every_source_are_met_to_half_a_row_and_nothing_is_repeated():
    pools = [long_and_short("a", 5000), long_and_short("b", 900, 1), long_and_short("c", 2000, 2)]
    taken = take(pools, takes={"a": {"tokens": 0.5}, "b": {"tokens": 0.2}, "c": {"tokens": 0.3}})
    got = tokens(pools, taken)
    whole = int(pools[1].lengths.sum()) / 0.2
    assert max(abs(got[name] - share * whole) for name, share in {"a": 0.5, "b": 0.2, "c": 0.3}.items()) <= 200
    assert sizes(taken)["b"] == 900, "the scarcest is used up"
    assert all(max(repeats(own)) == 1 for own in taken.values())
    assert taken["a"].asked == "tokens 0.5"


@given(st.floats(0.01, 0.7), st.integers(0, 5))
def test_a_token_share_beside_whole_sources_is_met_to_half_a_row_and_repeats_evenly(share, seed):
    pools = [long_and_short("a", 300), long_and_short("b", 400, 1), long_and_short("c", 200, 2)]
    taken = take(pools, seed, {"a": {"tokens": share}, "c": {"count": 150}}, max_passes=20)
    got = tokens(pools, taken)
    assert sizes(taken) | {"a": 0} == {"a": 0, "b": 400, "c": 150}
    assert abs(got["a"] - float(share) * (got["b"] + got["c"]) / (1 - float(share))) <= 200
    assert max(repeats(taken["a"])) - (min(repeats(taken["a"])) if len(repeats(taken["a"])) == 300 else 0) <= 1


def test_a_larger_token_share_contains_the_smaller():
    pools = [long_and_short("a", 1000), pool("b", zh=10_000)]
    small, large = (take(pools, takes={"a": {"tokens": share}})["a"].indices for share in (0.01, 0.05))
    assert 0 < len(small) < len(large) < 1000
    assert set(small) < set(large)


def test_a_token_share_that_asks_for_too_many_passes_is_refused():
    with pytest.raises(DataError) as caught:
        take([pool("a", zh=100), pool("b", zh=1000)], takes={"a": {"tokens": 0.5}})
    assert str(caught.value) == (
        "data.take.a: got tokens 0.5, which is 10.0 passes over the 100 rows; expected at most 4 (data.max_passes); "
        "try a smaller value or data.max_passes=10"
    )
    taken = take([pool("a", zh=100), pool("b", zh=1000)], takes={"a": {"tokens": 0.5}}, max_passes=10.0)
    assert repeats(taken["a"]) == [10] * 100


def test_token_shares_that_cannot_be_are_refused_in_one_sentence():
    assert wrong({"a": {"tokens": 1.0}}) == [
        "data.take: got token shares that sum to 1; expected less than 1, which leaves some for b; "
        "try smaller shares, or a share for every source"
    ]
    assert wrong({"a": {"tokens": 0.6}, "b": {"tokens": 0.3}}) == [
        "data.take: got token shares of every source that sum to 0.9; expected a sum of 1; try about a 0.667, b 0.333"
    ]
    assert wrong({"a": {"tokens": 30}}) == [
        "data.take.a.tokens: got 30; expected a share of the mix's tokens, at most 1; try data.take.a.tokens=0.5"
    ]
    assert wrong({"a": {"tokens": 0.2}}, quota={"zh": 5}) == [
        "data.take and data.quota: got token shares (a) and limits on languages (zh); "
        "expected one of them, for a limit would change the shares; try data.quota={} or counts in place of shares"
    ]
    assert wrong({"a": {"tokens": 0.1}, "b": {"tokens": 0.9}}) == wrong({"a": {"tokens": 0.3}}) == []


def test_a_temperature_of_1_is_the_concatenation():
    pools = [pool("a", zh=70), pool("b", vi=30)]
    for over in TemperatureOver:
        taken = take(pools, temperature=1.0, temperature_over=over)
        assert sizes(taken) == {"a": 70, "b": 30}
        assert taken["a"].asked == "all"


def test_a_temperature_cuts_the_large_repeats_the_small_and_keeps_the_rows_in_all():
    taken = take([pool("a", zh=900), pool("b", vi=100)], temperature=2.0)
    assert sizes(taken) == {"a": 750, "b": 250}, "30 to 10, the square roots"
    assert repeats(taken["a"]) == [1] * 750
    assert repeats(taken["b"]) == [2] * 50 + [3] * 50
    assert taken["b"].asked == "temperature 2"


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=6), st.floats(1, 20))
def test_tempered_sizes_keep_their_sum_and_order_and_come_nearer_to_each_other(rows, temperature):
    got = tempered(rows, temperature)
    assert sum(got) == sum(rows)
    powers = [size ** (1 / temperature) for size in rows]
    assert all(abs(count - sum(rows) * power / sum(powers)) < 1 + 1e-6 for count, power in zip(got, powers, strict=True))
    assert max(got) <= max(rows) + 1
    assert min(got) >= min(rows) - 1


def test_a_temperature_over_languages_draws_each_language_from_all_its_sources_alike():
    pools = [pool("a", zh=600, vi=40), pool("b", zh=300), pool("c", vi=60)]
    taken = take(pools, temperature=2.0, temperature_over=TemperatureOver.language)
    chinese = int((taken["a"].indices < 600).sum())
    assert (chinese, sizes(taken)["b"]) == (500, 250)
    assert (sizes(taken)["a"] - chinese, sizes(taken)["c"]) == (100, 150)
    assert set(repeats(taken["c"])) == {2, 3}
    assert set(Counter(taken["a"].indices.tolist()).values()) == {1, 2, 3}
    assert taken["a"].asked == "temperature 2 over languages"


def test_what_a_temperature_draws_of_a_source_comes_first_at_every_temperature():
    pools = [pool("a", zh=900), pool("b", vi=100)]
    few, more = (take(pools, temperature=value, max_passes=9)["a"].indices for value in (3.0, 2.0))
    counted = take(pools, takes={"a": {"count": len(few)}})["a"].indices
    assert few.tolist() == counted.tolist()
    assert set(few) < set(more)


def test_a_temperature_that_asks_for_too_many_passes_is_refused():
    pools = [pool("a", zh=9800), pool("b", vi=200)]
    with pytest.raises(DataError) as caught:
        take(pools, temperature=100.0)
    assert str(caught.value) == (
        "data.temperature: got 100, which is 24.5 passes over the 200 rows of b; expected at most 4 (data.max_passes); "
        "try a smaller value or data.max_passes=25"
    )
    with pytest.raises(DataError, match=r"24\.5 passes over the 200 rows in vi; expected at most 4"):
        take(pools, temperature=100.0, temperature_over=TemperatureOver.language)


def test_a_temperature_that_cannot_be_is_refused_in_one_sentence():
    assert wrong(temperature=0.5) == ["data.temperature: got 0.5; expected 1 (plain concatenation) or more; try data.temperature=2"]
    assert wrong(temperature=2.0, max_passes=0.5) == [
        "data.max_passes: got 0.5; expected 1 (nothing is repeated) or more; try data.max_passes=4"
    ]
    assert wrong({"a": {"count": 3}}, temperature=2.0) == [
        "data.temperature and data.take: got 2 and a; expected one of them, for each says how much of each source; "
        "try data.temperature=1 or data.take={}"
    ]
    assert wrong(quota={"zh": 3}, temperature=2.0) == [
        "data.temperature and data.quota: got 2 and zh; expected one of them, for each says how much of each language; "
        "try data.temperature=1 or data.quota={}"
    ]
    assert wrong(temperature=2.0) == []
