"""Normalise a model in this process, and hold the result against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from edgewise.forge.importing.checks import read_checked
from edgewise.forge.importing.normalise import normalise
from edgewise.runtimes.onnxruntime_ import OnnxRuntime
from tests.unit.importing.models import Array

Shapes = dict[str, tuple[int, ...]]
Inputs = dict[str, Sequence[int | str]]


def normalised(
    folder: Path, model: onnx.ModelProto, shapes: Shapes | None = None
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Write, check and normalise a model; hold it against the original on inputs of the test's own."""
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    checked, _ = read_checked(path)
    done, notes = normalise(checked, original=path, shapes=shapes or {})
    assert_same(path, done)
    if all(each.type.tensor_type.HasField("shape") for each in done.graph.output):
        onnx.checker.check_model(done)
    return done, notes


def assert_same(original: Path, done: onnx.ModelProto, tolerance: float = 1e-5) -> None:
    before, after = OnnxRuntime().load(original), OnnxRuntime().load(done.SerializeToString())
    assert [each.name for each in before.inputs] == [each.name for each in after.inputs]
    assert [each.name for each in before.outputs] == [each.name for each in after.outputs]
    feeds = {
        each.name: example(each.dtype, [3 if size is None else size for size in each.shape]) for each in after.inputs
    }
    for mine, theirs in zip(before.run(feeds), after.run(feeds), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance * float(np.abs(mine).max()))


def example(dtype: str, shape: Sequence[int]) -> Array:
    rng = np.random.default_rng(11)
    return rng.standard_normal(shape).astype(dtype) if dtype == "float32" else rng.integers(0, 2, shape).astype(dtype)


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(each.op_type for each in model.graph.node)
