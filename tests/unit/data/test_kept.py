from __future__ import annotations

from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest

from edgewise.forge.data.kept import KeptFeeds
from edgewise.forge.tasks.base import Sample


class Counting:
    """A dataset that tells how often each sample was read."""

    name = "counting"

    def __init__(self, count: int) -> None:
        self.count = count
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> Sample:
        self.read.append(index)
        return Sample({"x": np.full((1, 256), index, np.float32)})

    def digest(self) -> str:
        return ""


def kept(dataset: Counting, *, held: int) -> KeptFeeds:
    feeds = KeptFeeds(dataset, bytes_held=held * 1024)
    for index in range(len(dataset)):
        feeds.append(dataset[index].feeds)
    dataset.read.clear()
    return feeds


def test_what_is_held_is_not_read_again_and_the_rest_is() -> None:
    dataset = Counting(5)
    feeds = kept(dataset, held=2)
    assert [int(each["x"][0, 0]) for each in feeds] == [0, 1, 2, 3, 4]
    assert dataset.read == [2, 3, 4]


def test_ranges_and_positions_from_the_end() -> None:
    feeds = kept(Counting(5), held=2)
    assert [int(each["x"][0, 0]) for each in feeds[1:4]] == [1, 2, 3]
    assert int(feeds[-1]["x"][0, 0]) == 4
    with pytest.raises(IndexError):
        feeds[5]


def test_a_worker_process_receives_what_is_held_only() -> None:
    few, many = (len(ForkingPickler.dumps(kept(Counting(100), held=held))) for held in (2, 50))
    assert few < 8 * 1024 < 50 * 1024 < many
