"""Feed samples to a session in batches, without holding more than two of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from edgewise.forge.tasks.base import Array, Dataset, Feeds
from edgewise.runtimes.base import Session, TensorSpec

# More brings nothing on one thread, and memory grows with it.
BATCH = 4
# Of what one batch's inputs and outputs take: large samples go one by one, which costs them nothing.
_BATCH_BYTES = 32 * 1024 * 1024


def batch_limit(inputs: tuple[TensorSpec, ...]) -> int:
    """Return how many samples one call may take: 1 where an input's first axis is fixed."""
    return BATCH if all(spec.shape and spec.shape[0] is None for spec in inputs) else 1


def batches(dataset: Dataset, indices: Sequence[int], *, limit: int) -> Iterator[Feeds]:
    """Yield feeds of up to `limit` consecutive samples whose shapes agree."""
    held: list[Feeds] = []
    for index in indices:
        feeds = dataset[index].feeds
        if held and (len(held) >= limit or _shapes(held[0]) != _shapes(feeds)):
            yield _joined(held)
            held = []
        held.append(feeds)
    if held:
        yield _joined(held)


def values(session: Session, dataset: Dataset, indices: Sequence[int]) -> Iterator[tuple[int, Mapping[str, Array]]]:
    """Run a session over samples; yield, for each batch, how many it holds and its inputs and outputs by name.

    While the caller works on one batch the next is computed, on a thread: two batches are held, however
    many there are. The first is of one sample, whose size decides how many go into the others.
    """
    names = [spec.name for spec in session.outputs]

    def run(feeds: Feeds) -> tuple[int, Mapping[str, Array]]:
        return len(next(iter(feeds.values()))), dict(feeds) | dict(zip(names, session.run(feeds), strict=True))

    if not indices:
        return
    with ThreadPoolExecutor(1) as ahead:
        (first,) = batches(dataset, indices[:1], limit=1)
        count, found = ahead.submit(run, first).result()
        limit = min(batch_limit(session.inputs), max(1, _BATCH_BYTES // sum(each.nbytes for each in found.values())))
        yield count, found
        waiting = None
        for feeds in batches(dataset, indices[1:], limit=limit):
            done, waiting = waiting, ahead.submit(run, feeds)
            if done is not None:
                yield done.result()
        if waiting is not None:
            yield waiting.result()


def _shapes(feeds: Feeds) -> list[tuple[int, ...]]:
    return [array.shape for array in feeds.values()]


def _joined(held: list[Feeds]) -> Feeds:
    if len(held) == 1:
        return held[0]
    joined: dict[str, Array] = {name: np.concatenate([each[name] for each in held]) for name in held[0]}
    return joined
