"""Subjects made by hand: the demo's classifier, and variants of it that are broken in a known way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgewise.contracts.budget import Budget
from edgewise.contracts.target import RuntimeName
from edgewise.contracts.task import TaskConfig
from edgewise.contracts.verification import Depth
from edgewise.forge.data.open import open_dataset
from edgewise.forge.data.split import Subset
from edgewise.forge.tasks.classification import Classification
from edgewise.forge.verify.pairs import pair
from edgewise.forge.verify.subject import Subject
from edgewise.runtimes import runtime


def subject_of(
    data: Path,
    variant: Path,
    *,
    samples: int = 120,
    depth: Depth = Depth.QUICK,
    seconds: float = 2.0,
    seed: int = 0,
    budget: Budget | None = None,
) -> Subject:
    """Return the demo's fp32 model beside a variant, on the first samples of its test split."""
    execute = runtime(RuntimeName.ONNXRUNTIME)
    model = data / "model.onnx"
    reference, session = execute.load(model), execute.load(variant)
    config = TaskConfig(calibrate="calibrate.npz")
    whole = open_dataset(data / "test.npz", config=config, inputs=reference.inputs)
    test = Subset(whole, range(min(samples, len(whole))))
    task = Classification(classes=10)
    return Subject(
        task=task,
        test=test,
        calibrate=open_dataset(data / "calibrate.npz", config=config, inputs=reference.inputs),
        reference_path=model,
        normalised_path=model,
        variant_path=variant,
        reference=reference,
        variant=session,
        runtime=execute,
        threads=1,
        pairs=pair(task, reference, session, test, report=lambda _: None),
        recipe=None,
        groups=None,
        budget=budget or Budget(),
        depth=depth,
        seed=seed,
        seconds=seconds,
    )


def coarse(model: Path, folder: Path, *, bits: int = 3) -> Path:
    """Write the model with every weight rounded to a few bits, per tensor."""
    proto = onnx.load(model)
    for each in proto.graph.initializer:
        values = numpy_helper.to_array(each)
        if values.dtype == np.float32 and values.ndim >= 2:
            step = np.abs(values).max() / (2 ** (bits - 1) - 1)
            rounded = (np.round(values / step) * step).astype(np.float32)
            each.CopyFrom(numpy_helper.from_array(rounded, each.name))
    path = folder / f"coarse{bits}.onnx"
    onnx.save(proto, path)
    return path


def dazzled(model: Path, folder: Path, *, limit: float) -> Path:
    """Write the model so that it answers nothing (all scores 0) where the darkest pixel is above `limit`."""
    proto = onnx.load(model)
    graph = proto.graph
    (first,) = [each for each in graph.input if each.name not in {value.name for value in graph.initializer}]
    last = graph.output[0].name
    for node in graph.node:
        for at, name in enumerate(node.output):
            if name == last:
                node.output[at] = "before_dazzle"
    rank = len(first.type.tensor_type.shape.dim)
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(limit, np.float32), "dazzle_limit"),
            numpy_helper.from_array(np.arange(rank, dtype=np.int64), "dazzle_axes"),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("ReduceMin", [first.name, "dazzle_axes"], ["dazzle_least"], keepdims=0),
            helper.make_node("LessOrEqual", ["dazzle_least", "dazzle_limit"], ["dazzle_sees"]),
            helper.make_node("Cast", ["dazzle_sees"], ["dazzle_factor"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", ["before_dazzle", "dazzle_factor"], [last]),
        ]
    )
    proto.opset_import[0].version = max(proto.opset_import[0].version, 18)
    path = folder / "dazzled.onnx"
    onnx.save(proto, path)
    return path
