"""The samples that a user's own task gives, written to disk once so that they can be read in any order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgewise.errors import DataError
from edgewise.forge.data.fit import cast, check_dtype, check_shape, takes_rows
from edgewise.forge.data.rows import Rows
from edgewise.forge.data.scratch import Scratch
from edgewise.forge.tasks.base import Array, Sample
from edgewise.forge.tasks.user import UserTask
from edgewise.runtimes.base import TensorSpec


class UserDataset:
    """A split of a user's task. Feeds lie in a scratch file, targets in memory. Made by `open_user_split`."""

    def __init__(self, name: str, *, samples: Sequence[tuple[Mapping[str, Rows], Any]], digest: str) -> None:
        """Keep where the feeds of each sample lie."""
        self._name = name
        self._samples = tuple(samples)
        self._digest = digest
        self._scratch: Scratch | None = None

    @property
    def name(self) -> str:
        """The task and the split."""
        return self._name

    @property
    def targets(self) -> Sequence[Any] | None:
        """One target per sample, or None where all are None."""
        found = tuple(target for _, target in self._samples)
        return None if all(target is None for target in found) else found

    @property
    def warnings(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._samples)

    def __getitem__(self, index: int, /) -> Sample:
        """Read one sample; raises IndexError outside the split."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        rows, target = self._samples[index]
        return Sample(feeds={name: each.read(0, len(each)) for name, each in rows.items()}, target=target)

    def digest(self) -> str:
        """Return the SHA-256 (hex) of all feeds and targets."""
        return self._digest

    def fingerprint(self, index: int) -> bytes:
        """Return a digest of one sample's feeds."""
        return _fingerprint(self[index].feeds)

    def keep(self, scratch: Scratch) -> None:
        """Own the folder that the feeds lie in."""
        self._scratch = scratch


def open_user_split(task: UserTask, split: str, *, inputs: tuple[TensorSpec, ...]) -> UserDataset | None:
    """Write a split of the user's samples to a scratch file; None where it gives none.

    Each sample is checked against the model's inputs. Raises TaskError where the user's code fails, and
    DataError where a sample does not fit.
    """
    scratch = Scratch()
    path = scratch.folder / "samples.bin"
    state, samples = hashlib.sha256(), []
    with path.open("wb") as file:
        for index, (feeds, target) in enumerate(task.samples(split)):
            rows: dict[str, Rows] = {}
            arrays = _fitted(feeds, inputs, where=f"{task.kind}: sample {index} of {split!r}")
            for name, values in arrays.items():
                rows[name] = Rows(path=path, offset=file.tell(), dtype=values.dtype.str, shape=values.shape)
                file.write(values.tobytes())
            state.update(_fingerprint(arrays))
            state.update(target.tobytes() if isinstance(target, np.ndarray) else repr(target).encode())
            samples.append((rows, target))
    if not samples:
        scratch.close()
        return None
    dataset = UserDataset(f"{task.kind} {split}", samples=samples, digest=state.hexdigest())
    dataset.keep(scratch)
    return dataset


def _fitted(feeds: Any, inputs: tuple[TensorSpec, ...], *, where: str) -> dict[str, Array]:
    """Return one sample's feeds as the model takes them; a single array serves a model with one input."""
    if not isinstance(feeds, Mapping):
        feeds = {inputs[0].name: feeds} if len(inputs) == 1 else {}
    if set(feeds) != {spec.name for spec in inputs}:
        raise DataError(
            f"{where} has feeds for {', '.join(map(str, feeds)) or 'no input'}",
            required=f"a mapping with {', '.join(spec.name for spec in inputs)}",
            next_step="yield {input name: array}, target",
        )
    fitted = {}
    for spec in inputs:
        values, place = np.asarray(feeds[spec.name]), f"{where}, {spec.name!r}"
        check_dtype(values.dtype.str, spec, where=place)
        if values.ndim == len(spec.shape) - 1:
            values = values[None]
        _check_sample(values, spec, where=place)
        fitted[spec.name] = np.ascontiguousarray(cast(values, spec, where=place)).reshape(values.shape)
    return fitted


def _check_sample(values: Array, spec: TensorSpec, *, where: str) -> None:
    """Refuse anything but one slice of an input with a batch axis, or the whole of an input without."""
    if values.ndim == len(spec.shape) == 0 or (takes_rows(values.shape, spec) and len(values) == 1):
        return
    if takes_rows(values.shape, spec):
        raise DataError(
            f"{where} is a batch of {len(values)}", required="one sample at a time", next_step="yield them one by one"
        )
    check_shape((1, *values.shape), spec, where=where)


def _fingerprint(feeds: Mapping[str, Array]) -> bytes:
    state = hashlib.blake2b(digest_size=16)
    for name, values in feeds.items():
        state.update(f"{name} {values.dtype.str} {values.shape}".encode())
        state.update(values.tobytes())
    return state.digest()
