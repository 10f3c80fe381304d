"""One pass over a split: figures of every sample that tell splits apart, and what fp32 says about it.

Memory holds one sample and a few hundred numbers of each that is looked at.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.forge.data.labels import Labelled
from edgewise.forge.tasks.base import Array, Feeds, Outputs, Task
from edgewise.forge.tasks.classification import Classification
from edgewise.numerics.channels import channels_of
from edgewise.numerics.probabilities import are_probabilities, log_probabilities
from edgewise.runtimes.base import Session

SIGNATURE = 256
"""Numbers that stand for a sample's content."""
DoubleArray = NDArray[np.float64]


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the samples of one split that were looked at."""

    name: str
    indices: tuple[int, ...]
    fingerprints: tuple[bytes, ...]
    """Equal for samples that are equal byte for byte."""
    signatures: NDArray[np.float32]
    """Content at unit length, without its mean [samples, SIGNATURE]; zero where there is none."""
    inputs: dict[str, DoubleArray]
    """Statistics of the inputs by name (`x[2] mean`) [samples]."""
    outputs: dict[str, DoubleArray]
    """Statistics of fp32's outputs by name [samples]."""
    constant: tuple[int, ...]
    """Samples whose float inputs hold one value only."""
    probabilities: DoubleArray | None
    """fp32's class probabilities [samples, classes], for a classification."""
    targets: tuple[Any, ...]
    """Labels of the samples; None where there is none."""


def profile(
    name: str,
    dataset: Labelled,
    indices: Sequence[int],
    *,
    session: Session,
    task: Task,
    progress: Callable[[int], None] = lambda _: None,
) -> Profile:
    """Read and run the samples at `indices`, one by one; findings will call the split `name`."""
    signatures = np.zeros((len(indices), SIGNATURE), np.float32)
    rows: list[tuple[dict[str, float], dict[str, float]]] = []
    probabilities: list[DoubleArray] = []
    constant, targets, prints = [], [], []
    for at, index in enumerate(indices):
        sample = dataset[index]
        outputs = session.run(sample.feeds)
        signatures[at] = _signature(sample.feeds)
        found = _of_inputs(sample.feeds)
        rows.append((found, _of_outputs(outputs, task)))
        if any(name.endswith(" std") for name in found) and not any(
            value for name, value in found.items() if name.endswith(" std")
        ):
            constant.append(index)
        if isinstance(task, Classification):
            probabilities.append(_probabilities(outputs))
        targets.append(sample.target)
        prints.append(dataset.fingerprint(index))
        progress(at + 1)
    return Profile(
        name=name,
        indices=tuple(indices),
        fingerprints=tuple(prints),
        signatures=signatures,
        inputs=_columns([row[0] for row in rows]),
        outputs=_columns([row[1] for row in rows]),
        constant=tuple(constant),
        probabilities=np.stack(probabilities) if probabilities else None,
        targets=tuple(targets),
    )


def _of_inputs(feeds: Feeds) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, values in feeds.items():
        if values.dtype.kind != "f":
            found[f"{name} length"] = float(np.count_nonzero(values))
            continue
        for at, channel in enumerate(channels_of(values).astype(np.float64)):
            where = f"{name}[{at}]"
            found[f"{where} mean"] = float(channel.mean())
            if channel.size > 1:
                found[f"{where} std"] = float(channel.std())
                found[f"{where} largest"] = float(np.abs(channel).max())
    return found


def _of_outputs(outputs: Outputs, task: Task) -> dict[str, float]:
    if isinstance(task, Classification):
        p = _probabilities(outputs)
        top = np.sort(p)[::-1]
        found = {"best class": float(p.argmax()), "confidence": float(top[0])}
        found["entropy"] = float(-np.sum(p * np.log(np.maximum(p, np.finfo(np.float64).tiny))))
        return found | ({f"p(class {at})": float(value) for at, value in enumerate(p)} if p.size <= 16 else {})
    found = {}
    for at, values in enumerate(outputs):
        if values.dtype.kind == "f" and values.size:
            flat = values.reshape(-1).astype(np.float64)
            found |= {f"output {at} mean": float(flat.mean()), f"output {at} std": float(flat.std())}
            found[f"output {at} largest"] = float(np.abs(flat).max())
    return found


def _probabilities(outputs: Outputs) -> DoubleArray:
    scores = outputs[0].reshape(-1).astype(np.float64)
    return np.asarray(np.exp(log_probabilities(scores, stored=are_probabilities(scores))))


def _signature(feeds: Feeds) -> NDArray[np.float32]:
    """Return a sample's content: floats as means over equal parts, numbers as counts of neighbouring pairs."""
    total = np.zeros(SIGNATURE, np.float64)
    for values in feeds.values():
        flat = values.reshape(-1)
        if flat.dtype.kind == "f":
            part = _parts(channels_of(values))
        else:
            part = np.zeros(SIGNATURE)
            for pair in zip(flat[:-1].tolist(), flat[1:].tolist(), strict=True):
                part[zlib.crc32(repr(pair).encode()) % SIGNATURE] += 1
        total += part
    total -= total.mean()
    length = float(np.linalg.norm(total))
    return (total / length if length > 0 else total).astype(np.float32)


def _parts(channels: Array) -> DoubleArray:
    """Return SIGNATURE means over neighbouring values, channel by channel."""
    each = max(1, SIGNATURE // len(channels))
    found = np.zeros(SIGNATURE)
    for at, channel in enumerate(channels[:SIGNATURE]):
        pieces = np.array_split(channel.astype(np.float64), min(each, channel.size))
        found[at * each : at * each + len(pieces)] = [piece.mean() for piece in pieces]
    return found


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, DoubleArray]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row[name] for row in rows if name in row]) for name in names}
