"""The inputs of a split that is gone through hundreds of times: some are held, the others are read each time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from edgewise.forge.tasks.base import Dataset, Feeds


class KeptFeeds(Sequence[Feeds]):
    """The inputs of the leading samples of a dataset. At most `bytes_held` of them are kept in memory."""

    def __init__(self, dataset: Dataset, *, bytes_held: int) -> None:
        """Start empty; `append` adds the dataset's next sample."""
        self._dataset = dataset
        self._room = bytes_held
        self._held: list[Feeds] = []
        self._count = 0

    def append(self, feeds: Feeds) -> None:
        """Add the inputs of the next sample; they are held while there is room."""
        size = sum(each.nbytes for each in feeds.values())
        if len(self._held) == self._count and size <= self._room:
            self._held.append(feeds)
            self._room -= size
        self._count += 1

    def __len__(self) -> int:
        """Return the number of samples."""
        return self._count

    @overload
    def __getitem__(self, index: int, /) -> Feeds: ...
    @overload
    def __getitem__(self, index: slice, /) -> tuple[Feeds, ...]: ...

    def __getitem__(self, index: int | slice, /) -> Feeds | tuple[Feeds, ...]:
        """Return one sample's inputs, or those of a range; raises IndexError outside."""
        if isinstance(index, slice):
            return tuple(self[at] for at in range(*index.indices(self._count)))
        at = index + self._count if index < 0 else index
        if not 0 <= at < self._count:
            raise IndexError(index)
        return self._held[at] if at < len(self._held) else self._dataset[at].feeds
