"""How many rows of each source, exactly, and always the same ones."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from babeltune.data.mixing import Pool, apportion, mix
from babeltune.errors import ConfigError, DataError
from babeltune.options import DataConfig, SourceConfig, TakeConfig


def pool(source, **languages):
    """`pool("a", zh=3, vi=2)`: three rows of Chinese, then two of Vietnamese."""
    tags = [tag for tag, count in languages.items() for _ in range(count)]
    return Pool(source, np.array(tags, dtype=np.str_))


def take(pools, seed=0, takes=None, **options):
    data = DataConfig(name="mix", take={name: TakeConfig(**how) for name, how in (takes or {}).items()}, **options)
    return {taken.source: taken for taken in mix(pools, data, seed)}


def sizes(taken):
    return {source: len(own.indices) for source, own in taken.items()}


def repeats(taken):
    """How often each row appears: the counts, without the rows."""
    return sorted(Counter(taken.indices.tolist()).values())


def test_a_mix_keeps_every_row_exactly_once():
    taken = take([pool("a", zh=5), pool("b", vi=3)])
    assert taken["a"].indices.tolist() == [0, 1, 2, 3, 4]
    assert taken["b"].indices.tolist() == [0, 1, 2]
    assert taken["a"].indices.dtype == np.int64
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


def test_every_problem_of_a_mix_is_told_at_once():
    options = {"quota": {"fr": 1, "vi": -1}, "max_rows": 0, "sources": {"b": SourceConfig(name="b", language="vi")}}
    takes = {"alpaca_vn": {"count": 1}, "alpaca_vi": {"count": 0, "weight": 1.0}, "b": {"fraction": float("nan")}}
    with pytest.raises(ConfigError) as caught:
        take([pool("alpaca_vi", zh=3), pool("b", zh=1)], takes=takes, **options)
    assert str(caught.value).splitlines() == [
        "data.take: got 'alpaca_vn'; expected a source of the mix; try alpaca_vi",
        "data.quota: got 'fr'; expected a language of the mix; try vi, zh",
        "data.take.alpaca_vi: got count 0, weight 1; expected one of count, fraction and weight; try leaving one",
        "data.take.alpaca_vi.count: got 0; expected a number above zero; try null to take every row",
        "data.take.b.fraction: got nan; expected a number above zero; try null to take every row",
        "data.quota.vi: got -1; expected a count; try leaving the language out to take every row",
        "data.max_rows: got 0; expected a positive count; try null to take every row",
    ]
