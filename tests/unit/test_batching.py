"""Batches: every row once, never over the limit, the same order for the same seed, and about as many labels in each step."""

from __future__ import annotations

from itertools import chain, combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightft.batching import inference_batches, training_steps

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=120)


def steps_of(lengths: list[int], **settings: object) -> list[list[list[int]]]:
    defaults = {"batch_size": 8, "max_tokens": 512, "seed": 0, "epoch": 0}
    return training_steps(lengths, [1] * len(lengths), **{**defaults, **settings})  # type: ignore[arg-type]


def some_lengths(rows: int = 2000) -> list[int]:
    return np.random.default_rng(0).geometric(1 / 25, rows).tolist()


@given(LENGTHS, st.integers(1, 20), st.integers(1, 2000), st.booleans(), st.data())
def test_every_row_is_in_an_epoch_exactly_once(
    lengths: list[int], batch_size: int, max_tokens: int, by_length: bool, data: st.DataObject
) -> None:
    labels = data.draw(st.lists(st.integers(1, 50), min_size=len(lengths), max_size=len(lengths)))
    steps = training_steps(
        lengths, labels, batch_size=batch_size, max_tokens=max_tokens, seed=0, epoch=0, by_length=by_length
    )
    assert sorted(chain.from_iterable(chain.from_iterable(steps))) == list(range(len(lengths)))
    assert all(micro_batch for step in steps for micro_batch in step)
    assert all(steps)


@given(LENGTHS, st.integers(1, 2000), st.integers(1, 40))
def test_no_batch_is_over_the_limit_unless_it_is_one_row(lengths: list[int], max_tokens: int, max_rows: int) -> None:
    batches = [
        *chain.from_iterable(steps_of(lengths, max_tokens=max_tokens)),
        *inference_batches(lengths, max_tokens=max_tokens, max_rows=max_rows),
    ]
    for batch in batches:
        assert len(batch) * max(lengths[row] for row in batch) <= max_tokens or len(batch) == 1


@given(LENGTHS, st.integers(1, 2000), st.integers(1, 40))
def test_inference_reads_every_row_once_longest_first(lengths: list[int], max_tokens: int, max_rows: int) -> None:
    batches = inference_batches(lengths, max_tokens=max_tokens, max_rows=max_rows)
    order = list(chain.from_iterable(batches))
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[row] for row in order] == sorted(lengths, reverse=True)
    assert all(len(batch) <= max_rows for batch in batches)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=9), st.integers(1, 200), st.integers(1, 5), st.integers(0, 80))
def test_no_other_batches_cost_less(lengths: list[int], max_tokens: int, max_rows: int, pass_cost: int) -> None:
    def cost(batches: list[list[int]]) -> int:
        return sum(pass_cost + len(batch) * max(batch) for batch in batches)

    def allowed(batch: list[int]) -> bool:
        return len(batch) == 1 or (len(batch) <= max_rows and len(batch) * max(batch) <= max_tokens)

    batches = inference_batches(lengths, max_tokens=max_tokens, max_rows=max_rows, pass_cost=pass_cost)
    assert sorted(chain.from_iterable(batches)) == list(range(len(lengths)))
    found = [[lengths[row] for row in batch] for batch in batches]
    assert list(chain.from_iterable(found)) == sorted(lengths, reverse=True)
    assert all(map(allowed, found))
    longest_first = sorted(lengths, reverse=True)
    cuts = chain.from_iterable(combinations(range(1, len(lengths)), count) for count in range(len(lengths)))
    others = ([longest_first[start:end] for start, end in pairwise([0, *cut, len(lengths)])] for cut in cuts)
    assert cost(found) == min(cost(other) for other in others if all(map(allowed, other)))


def test_a_split_of_a_step_keeps_its_rows() -> None:
    lengths = some_lengths()
    whole = [sorted(chain.from_iterable(step)) for step in steps_of(lengths, max_tokens=10**9)]
    split = [sorted(chain.from_iterable(step)) for step in steps_of(lengths, max_tokens=100)]
    assert whole == split
    assert max(map(len, steps_of(lengths, max_tokens=100))) > 1


def test_the_order_depends_on_seed_and_epoch_and_nothing_else() -> None:
    lengths = some_lengths()
    np.random.seed(3)  # noqa: NPY002
    first = steps_of(lengths)
    np.random.seed(4)  # noqa: NPY002
    assert steps_of(lengths) == first
    assert steps_of(lengths, epoch=1) != first
    assert steps_of(lengths, seed=1) != first
    assert steps_of(lengths, seed=1) != steps_of(lengths, epoch=1)


def test_rows_with_one_label_each_make_steps_of_exactly_the_batch_size() -> None:
    for by_length in (True, False):
        sizes = [len(list(chain.from_iterable(step))) for step in steps_of(some_lengths(803), by_length=by_length)]
        assert sorted(sizes)[1:] == [8] * 100
        assert min(sizes) == 3


def test_steps_hold_about_as_many_labels_however_long_their_rows() -> None:
    lengths = some_lengths()
    steps = training_steps(lengths, lengths, batch_size=16, max_tokens=10**9, seed=0, epoch=0)
    labels = np.array([sum(lengths[row] for row in chain.from_iterable(step)) for step in steps])
    assert labels.max() < 2 * labels.mean()
    assert labels.min() > labels.mean() / 2
    assert len(steps) == pytest.approx(len(lengths) / 16, rel=0.05)
    plain = training_steps(lengths, [1] * len(lengths), batch_size=16, max_tokens=10**9, seed=0, epoch=0)
    by_rows = np.array([sum(lengths[row] for row in chain.from_iterable(step)) for step in plain])
    assert by_rows.max() > 5 * by_rows.min()


def test_rows_of_like_length_stand_together() -> None:
    lengths = some_lengths()

    def padding(steps: list[list[list[int]]]) -> float:
        batches = list(chain.from_iterable(steps))
        padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
        return 1 - sum(lengths) / padded

    assert padding(steps_of(lengths, max_tokens=10**9)) < 0.1
    assert padding(steps_of(lengths, max_tokens=10**9, by_length=False)) > 0.4


def test_steps_are_shuffled_so_that_lengths_do_not_rise() -> None:
    lengths = some_lengths()
    longest = [max(lengths[row] for row in chain.from_iterable(step)) for step in steps_of(lengths, max_tokens=10**9)]
    assert abs(np.corrcoef(longest, range(len(longest)))[0, 1]) < 0.3


def test_no_rows_make_no_batches() -> None:
    assert inference_batches([], max_tokens=10) == []
    assert inference_batches([], max_tokens=10, pass_cost=3) == []
