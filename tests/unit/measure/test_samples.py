from __future__ import annotations

import numpy as np

from edgewise.forge.measure.samples import timed_from, timed_samples
from edgewise.forge.tasks.base import Feeds, Sample
from tests.unit.forge.nets import Arrays


def texts(*lengths: int) -> list[Feeds]:
    return [{"ids": np.full((1, length), at)} for at, length in enumerate(lengths)]


def lengths(feeds: tuple[Feeds, ...]) -> list[int]:
    return [each["ids"].shape[1] for each in feeds]


def test_inputs_of_one_shape_are_taken_from_the_front() -> None:
    assert [int(each["ids"][0, 0]) for each in timed_samples(texts(*[5] * 9), count=4)] == [0, 1, 2, 3]


def test_inputs_of_different_shapes_are_spread_over_all_sizes() -> None:
    """The first ones are short by chance; what is timed has the lengths of all."""
    every = [8, 9, 8, 9, *range(10, 106)]
    some = lengths(timed_samples(texts(*every), count=10))
    assert len(some) == 10
    assert abs(np.mean(some) - np.mean(every)) < 2
    assert sum(each <= np.median(every) for each in some) == 5


def test_fewer_inputs_than_asked_for_are_all_taken() -> None:
    assert sorted(lengths(timed_samples(texts(3, 1, 2), count=16))) == [1, 2, 3]


class Counted(Arrays):
    """Notes how many samples were read."""

    reads = 0

    def __getitem__(self, index: int, /) -> Sample:
        self.reads += 1
        return super().__getitem__(index)


def test_of_a_split_of_one_shape_no_more_is_read_than_is_timed() -> None:
    split = Counted(texts(*[5] * 40))
    assert len(timed_from(split, among=30, count=4)) == 4
    assert split.reads == 4


def test_of_a_split_of_many_shapes_the_first_ones_are_looked_at() -> None:
    split = Counted(texts(*range(1, 41)))
    expected = lengths(timed_samples(texts(*range(1, 31)), count=4))
    assert lengths(timed_from(split, among=30, count=4)) == expected
    assert split.reads == 30
