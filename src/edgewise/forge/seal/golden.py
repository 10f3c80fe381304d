"""Golden inputs: samples whose outputs every device must find again, within a tolerance that was measured.

The tolerance of an output is FACTOR times the largest difference, over the golden inputs, between the graph as the
runtime optimises it and as it is written (which ONNX Runtime runs): two correct ways to compute the same thing, as
another processor's kernels are a third. It is at least FLOOR of the output's spread, and must still tell two golden
inputs apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgewise.bundle.tensors import Array, place_arrays
from edgewise.contracts.manifest import Golden, GoldenOutput, GoldenOutputs, TensorPlace
from edgewise.errors import DataError, ExecutionError
from edgewise.forge.tasks.base import Dataset, Feeds, Outputs
from edgewise.runtimes.base import Runtime, Session
from edgewise.runtimes.onnxruntime_ import OnnxRuntime

INPUTS = "golden/inputs.bin"
MOST_SAMPLES = 8
MOST_BYTES = 4 << 20
FACTOR = 4.0
FLOOR = 0.01
_SMALLEST = 1e-6


def choose_inputs(split: Dataset) -> tuple[Feeds, ...]:
    """Return samples spread over a split: at most MOST_SAMPLES, and as many as fit into MOST_BYTES, at least one."""
    count = min(len(split), MOST_SAMPLES)
    chosen: list[Feeds] = []
    total = 0
    for at in np.linspace(0, len(split) - 1, count).round().astype(int).tolist():
        feeds = split[at].feeds
        total += sum(array.nbytes for array in feeds.values())
        if chosen and total > MOST_BYTES:
            break
        chosen.append(feeds)
    return tuple(chosen)


def golden_inputs(feeds: Sequence[Feeds], names: Sequence[str], *, split: str) -> tuple[Golden, bytes]:
    """Return where the inputs lie and the file that holds them; raises DataError for inputs that are no numbers."""
    flat = [(name, np.asarray(each[name])) for each in feeds for name in names]
    try:
        places, data = place_arrays(flat)
    except ValueError as error:
        raise DataError(f"golden inputs cannot be kept: {error}", required="inputs that are numbers") from error
    return Golden(path=INPUTS, split=split, samples=_grouped(places, len(names))), data


def golden_outputs(
    model: Path, feeds: Sequence[Feeds], *, path: str, runtime: Runtime, threads: int, source: Path
) -> tuple[GoldenOutputs, bytes]:
    """Run a parted model on the golden inputs; return what it gave, with tolerances, and the file that holds it.

    Raises ExecutionError unless it gives what `source`, the model in one file, gives bit by bit.
    """
    session = runtime.load(model, threads=threads)
    found = [session.run(each) for each in feeds]
    whole = runtime.load(source, threads=threads)
    plain = load_as_written(source, threads=threads)
    if not all(_equal(outputs, whole.run(each)) for outputs, each in zip(found, feeds, strict=True)):
        raise ExecutionError(
            f"{source.name} gives other outputs when its weights stand beside it",
            required="the same outputs, bit by bit",
            next_step="report this with the model",
        )
    tolerances = _tolerances(session, found, [plain.run(each) for each in feeds])
    names = [each.name for each in session.outputs]
    places, data = place_arrays((name, array) for outputs in found for name, array in zip(names, outputs, strict=True))
    samples = tuple(
        tuple(GoldenOutput(tensor=place, tolerance=tolerances[place.name]) for place in sample)
        for sample in _grouped(places, len(names))
    )
    return GoldenOutputs(path=path, samples=samples), data


def load_as_written(model: Path, *, threads: int) -> Session:
    """Load a model without optimising it, on the one runtime that can: others always optimise."""
    return OnnxRuntime().load(model, threads=threads, optimise=False)


def _tolerances(session: Session, found: Sequence[Outputs], other: Sequence[Outputs]) -> dict[str, float]:
    """Return the tolerance of every output."""
    return {
        spec.name: tolerance_of(spec.name, [(a[at], b[at]) for a, b in zip(found, other, strict=True)])
        for at, spec in enumerate(session.outputs)
    }


def tolerance_of(name: str, pairs: Sequence[tuple[Array, Array]]) -> float:
    """Return the tolerance of an output that was computed in two ways for every golden input.

    Raises ExecutionError where it is not finite.
    """
    if pairs and not np.issubdtype(pairs[0][0].dtype, np.floating):
        return 0.0  # a label or a count is right or wrong
    if any(not np.isfinite(array).all() for pair in pairs for array in pair):
        raise ExecutionError(
            f"the output {name!r} is not finite on a golden input",
            required="finite outputs, which a device can compare",
            next_step="look at the model's output for that sample before it is sealed",
        )
    observed = max((_distance(a, b) for a, b in pairs), default=0.0)
    values = np.concatenate([array.ravel() for array, _ in pairs]) if pairs else np.zeros(1)
    spread = float(np.ptp(values)) if values.size else 0.0
    return max(FACTOR * observed, FLOOR * spread, _SMALLEST)


def tells_apart(golden: Sequence[Outputs], tolerances: Sequence[float]) -> bool:
    """Return whether some output differs between the golden inputs by more than its tolerance."""
    return any(
        _distance(outputs[at], golden[0][at]) > tolerance
        for outputs in golden[1:]
        for at, tolerance in enumerate(tolerances)
        if outputs[at].shape == golden[0][at].shape
    )


def _grouped(flat: Sequence[TensorPlace], size: int) -> tuple[tuple[TensorPlace, ...], ...]:
    return tuple(tuple(flat[start : start + size]) for start in range(0, len(flat), size))


def _equal(a: Outputs, b: Outputs) -> bool:
    return all(
        mine.shape == its.shape and np.array_equal(mine, its, equal_nan=mine.dtype.kind == "f")
        for mine, its in zip(a, b, strict=True)
    )


def _distance(a: Array, b: Array) -> float:
    if a.shape != b.shape:
        return float("inf")
    return float(np.max(np.abs(a.astype(np.float64) - b.astype(np.float64)))) if a.size else 0.0
