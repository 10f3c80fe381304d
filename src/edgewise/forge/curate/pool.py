"""Several splits as one pool."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from edgewise.contracts.task import TaskConfig
from edgewise.forge.data.labels import Labelled
from edgewise.forge.data.open import open_dataset
from edgewise.forge.tasks.base import Sample
from edgewise.forge.tasks.embedding import Pair
from edgewise.runtimes.base import TensorSpec


class Pool:
    """Datasets one after the other. A view: samples are read when they are asked for."""

    def __init__(self, parts: Sequence[Labelled]) -> None:
        """Join at least one dataset."""
        self.parts = tuple(parts)
        self._ends = tuple(accumulate(map(len, self.parts)))

    @property
    def name(self) -> str:
        """The names of the parts."""
        return " + ".join(each.name for each in self.parts)

    @property
    def targets(self) -> Sequence[Any] | None:
        """The targets of all parts, or None where some part has none."""
        known = [each.targets for each in self.parts]
        if any(each is None for each in known):
            return None
        return tuple(target for each in known for target in each or ())

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of the parts."""
        return tuple(warning for each in self.parts for warning in each.warnings)

    @property
    def group(self) -> int:
        """How many consecutive samples belong together: 2 for pairs."""
        pairs = [
            each.targets is not None and len(each) > 0 and isinstance(each.targets[0], Pair) for each in self.parts
        ]
        return 2 if all(pairs) else 1

    def __len__(self) -> int:
        """Return the number of samples of all parts."""
        return self._ends[-1]

    def __getitem__(self, index: int, /) -> Sample:
        """Read one sample; raises IndexError outside the pool."""
        part, at = self.where(index)
        return self.parts[part][at]

    def where(self, index: int) -> tuple[int, int]:
        """Return the number of a sample's part and its place there; raises IndexError outside the pool."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = bisect_right(self._ends, index)
        return part, index - (self._ends[part - 1] if part else 0)

    def digest(self) -> str:
        """Return the SHA-256 (hex) of the parts' digests."""
        return hashlib.sha256("".join(each.digest() for each in self.parts).encode()).hexdigest()

    def fingerprint(self, index: int) -> bytes:
        """Return a digest of one sample's inputs."""
        part, at = self.where(index)
        return self.parts[part].fingerprint(at)


def open_pool(paths: Sequence[Path], *, config: TaskConfig, inputs: tuple[TensorSpec, ...]) -> Pool:
    """Open every path as a split of a model with these inputs. Raises DataError."""
    return Pool([open_dataset(path, config=config, inputs=inputs) for path in paths])
