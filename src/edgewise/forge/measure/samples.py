"""Pick the inputs that times are measured on."""

from __future__ import annotations

from collections.abc import Sequence

from edgewise.forge.tasks.base import Dataset, Feeds


def timed_from(dataset: Dataset, *, among: int, count: int) -> tuple[Feeds, ...]:
    """Return the same of the first `among` samples of a split; no more of it is read than is needed to tell."""
    first = tuple(dataset[at].feeds for at in range(min(count, len(dataset))))
    if len({_shapes(each) for each in first}) <= 1:
        return first
    rest = (dataset[at].feeds for at in range(len(first), min(among, len(dataset))))
    return timed_samples([*first, *rest], count=count)


def timed_samples(feeds: Sequence[Feeds], *, count: int) -> tuple[Feeds, ...]:
    """Return the first `count` inputs; where their shapes differ, `count` spread evenly over the sizes of all.

    What integers gain depends on the length of a text, so the lengths timed must be those that occur.
    """
    first = tuple(feeds[at] for at in range(min(count, len(feeds))))
    if len({_shapes(each) for each in first}) <= 1:
        return first
    sizes = [sum(each.size for each in feeds[at].values()) for at in range(len(feeds))]
    ranked = sorted(range(len(feeds)), key=lambda at: (sizes[at], at))
    # The middle of each of `count` equal parts.
    middle = [int((part + 0.5) * len(feeds) / len(first)) for part in range(len(first))]
    return tuple(feeds[at] for at in sorted(ranked[each] for each in middle))


def _shapes(feeds: Feeds) -> tuple[tuple[int, ...], ...]:
    return tuple(each.shape for each in feeds.values())
