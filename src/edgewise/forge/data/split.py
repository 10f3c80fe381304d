"""Parts of a dataset: seeded, disjoint, and together the whole."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgewise.errors import DataError
from edgewise.forge.data.labels import Labelled
from edgewise.forge.tasks.base import Sample


class Subset:
    """Some samples of a dataset, in the order of `indices`. A view: nothing is copied."""

    def __init__(self, dataset: Labelled, indices: Sequence[int]) -> None:
        """Look at these samples; raises IndexError for one that does not exist."""
        if any(not 0 <= index < len(dataset) for index in indices):
            raise IndexError(f"an index is outside 0 to {len(dataset) - 1}")
        self._dataset = dataset
        self.indices = tuple(int(index) for index in indices)

    @property
    def name(self) -> str:
        """The name of the whole, with the number of samples seen here."""
        return f"{self._dataset.name} ({len(self)} of {len(self._dataset)})"

    def origin(self, index: int) -> tuple[Labelled, int]:
        """Return the dataset that is looked at and a sample's place in it."""
        return self._dataset, self.indices[index]

    @property
    def targets(self) -> Sequence[Any] | None:
        """The targets of these samples, or None."""
        targets = self._dataset.targets
        return None if targets is None else tuple(targets[index] for index in self.indices)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of the whole."""
        return self._dataset.warnings

    def __len__(self) -> int:
        """Return the number of samples seen here."""
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Sample:
        """Read one sample; raises IndexError outside the view."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._dataset[self.indices[index]]

    def digest(self) -> str:
        """Return the SHA-256 (hex) of the whole's digest and the indices."""
        state = hashlib.sha256(self._dataset.digest().encode())
        state.update(np.asarray(self.indices, "<i8").tobytes())
        return state.hexdigest()

    def fingerprint(self, index: int) -> bytes:
        """Return a digest of one sample's inputs."""
        return self._dataset.fingerprint(self.indices[index])


def split_pool(n: int, *, share: float, seed: int, group: int = 1) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return `(calibrate, select)` indices of a pool of `n`: disjoint, together all, ascending, the same for a seed.

    `share` of the pool is set aside for select, but at least one sample stays on either side (a pool of one
    gives it to calibrate). `group` consecutive samples are never parted (2 for pairs). Raises DataError for
    an empty pool and ValueError for a share outside 0 to 1.
    """
    if n <= 0:
        raise DataError("the calibration pool is empty", required="at least one sample", next_step="add samples")
    if not 0 < share < 1:
        raise ValueError(f"share {share} is not between 0 and 1")
    groups = -(-n // group)
    aside = min(max(1, round(groups * share)), groups - 1)
    order = np.random.default_rng(seed).permutation(groups)
    chosen = np.zeros(groups, np.bool_)
    chosen[order[:aside]] = True
    mine = np.repeat(chosen, group)[:n]
    return tuple(np.flatnonzero(~mine).tolist()), tuple(np.flatnonzero(mine).tolist())


def at_most(indices: tuple[int, ...], limit: int, *, seed: int, group: int) -> tuple[int, ...]:
    """Return at most `limit` of the indices, a seeded part of them in their order, groups kept together."""
    if len(indices) <= limit:
        return indices
    kept, _ = split_pool(len(indices), share=1 - limit / len(indices), seed=seed, group=group)
    return tuple(indices[at] for at in kept[: limit - limit % group])
