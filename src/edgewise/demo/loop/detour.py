"""A model made slow on purpose: it computes the same, after a detour whose result counts for nothing.

What `edgewise optimize` chooses is hardly ever slower than fp32, so the demo's bad release has to be made by hand.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

_CHANNELS = 64


def write_detour(model: Path, path: Path, *, rounds: int = 3) -> None:
    """Write `model`, which has one image [1, C, H, W] as input, with `rounds` convolutions beside it, times zero."""
    loaded = onnx.load(model)
    graph = loaded.graph
    image, output = graph.input[0], graph.output[0]
    width = image.type.tensor_type.shape.dim[1].dim_value
    draw = np.random.default_rng(0)
    value = image.name
    for each in range(rounds):
        kernel = draw.normal(scale=0.05, size=(_CHANNELS, width, 3, 3)).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(kernel, f"detour.weight.{each}"))
        names = [value, f"detour.weight.{each}"]
        graph.node.append(helper.make_node("Conv", names, [f"detour.{each}"], pads=[1, 1, 1, 1], name=f"detour.{each}"))
        value, width = f"detour.{each}", _CHANNELS
    graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), "detour.zero"))
    graph.node.append(helper.make_node("ReduceMean", [value], ["detour.mean"], keepdims=0, name="detour.mean"))
    graph.node.append(
        helper.make_node("Mul", ["detour.mean", "detour.zero"], ["detour.nothing"], name="detour.nothing")
    )
    for node in graph.node:
        for place, name in enumerate(node.output):
            if name == output.name:
                node.output[place] = "detour.answer"
    last = helper.make_node("Add", ["detour.answer", "detour.nothing"], [output.name], name="detour.end")
    graph.node.append(last)
    onnx.checker.check_model(loaded, full_check=True)
    onnx.save(loaded, path)
