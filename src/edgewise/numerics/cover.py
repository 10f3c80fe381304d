"""Choose few of many: greedy weighted set cover, and farthest-first traversal."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

DoubleArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


def greedy_cover(covers: BoolArray, weights: DoubleArray, count: int, *, reach: DoubleArray | None = None) -> list[int]:
    """Return `count` rows of `covers` [samples, elements], those first that add most uncovered weight.

    Greedy maximum coverage: within 1 - 1/e of the best choice (Nemhauser, Wolsey and Fisher, Math. Programming
    14, 1978, section 4), evaluated lazily (Minoux 1978). Among equal gains the larger `reach` [samples] wins, then
    the lower number. Once nothing more can be covered the count starts anew with the rows that are left, so that
    what is rare is seen again and again. Raises ValueError where there are fewer rows than `count`.
    """
    samples = len(covers)
    if count > samples:
        raise ValueError(f"{count} of {samples} rows")
    far = np.zeros(samples) if reach is None else np.asarray(reach, np.float64)
    chosen: list[int] = []
    while len(chosen) < count:
        left = sorted(set(range(samples)) - set(chosen))
        added = _one_cover(covers, weights, count - len(chosen), far, left)
        # Where those that are left cover nothing at all, reach alone decides.
        chosen += added or sorted(left, key=lambda row: (-far[row], row))[: count - len(chosen)]
    return chosen


def farthest_first(features: DoubleArray, count: int, *, start: int | None = None) -> list[int]:
    """Return `count` rows of `features` [samples, d], each the farthest from those before it: k-centre.

    Within a factor of two of the smallest radius (Gonzalez, Theor. Comput. Sci. 38, 1985, theorem 2.2). The first is
    `start`, or the row nearest to the mean. Raises ValueError where there are fewer rows than `count`.
    """
    if count > len(features):
        raise ValueError(f"{count} of {len(features)} rows")
    if start is None:
        start = int(_squared(features, features.mean(axis=0)).argmin())
    chosen = [start][:count]
    nearest = _squared(features, features[start])
    while len(chosen) < count:
        nearest[chosen[-1]] = -1.0  # never twice, not even among equal rows
        at = int(nearest.argmax())
        chosen.append(at)
        nearest = np.where(nearest < 0, nearest, np.minimum(nearest, _squared(features, features[at])))
    return chosen


def _one_cover(covers: BoolArray, weights: DoubleArray, count: int, far: DoubleArray, left: list[int]) -> list[int]:
    """Return rows of `left` in greedy order until nothing more can be covered."""
    uncovered = np.array(weights, np.float64)
    # A gain only shrinks as others are chosen: one that was computed before is an upper bound.
    heap = [(-float(uncovered[covers[row]].sum()), -float(far[row]), row) for row in left]
    heapq.heapify(heap)
    chosen: list[int] = []
    while heap and len(chosen) < count:
        _, distance, row = heapq.heappop(heap)
        gain = float(uncovered[covers[row]].sum())
        if heap and (-gain, distance, row) > heap[0]:
            heapq.heappush(heap, (-gain, distance, row))
            continue
        if gain <= 0:
            break
        chosen.append(row)
        uncovered[covers[row]] = 0.0
    return chosen


def _squared(features: DoubleArray, point: DoubleArray) -> DoubleArray:
    difference = features - point
    return np.asarray(np.einsum("ij,ij->i", difference, difference))
