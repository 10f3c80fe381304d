"""Small networks the forge's tests quantize, with random samples and everything needed to lower them."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from edgewise.contracts.recipe import Format, Recipe
from edgewise.forge.calibrate import Calibration, calibrate
from edgewise.forge.graph import Graph
from edgewise.forge.lower.lowering import lower
from edgewise.forge.regions import Region, regions_of
from edgewise.forge.search.options import Style, placed
from edgewise.forge.tasks.base import Feeds, Sample
from edgewise.forge.weights import Corrections, parameters_for
from edgewise.runtimes.base import Session
from edgewise.runtimes.onnxruntime_ import Level, OnnxRuntime, session_options
from tests.unit.runtimes.models import model_of

Array = NDArray[Any]


class Arrays:
    """A data set held in memory."""

    def __init__(self, feeds: Sequence[Feeds], targets: Sequence[Any] | None = None) -> None:
        self._feeds = list(feeds)
        self._targets = targets

    @property
    def name(self) -> str:
        return "arrays"

    def __len__(self) -> int:
        return len(self._feeds)

    def __getitem__(self, index: int, /) -> Sample:
        return Sample(feeds=self._feeds[index], target=None if self._targets is None else self._targets[index])

    def digest(self) -> str:
        return hashlib.sha256(b"".join(each.tobytes() for feeds in self._feeds for each in feeds.values())).hexdigest()


class Workshop:
    """A model with its graph, regions, samples and calibration, ready to be lowered."""

    def __init__(self, model: onnx.ModelProto, *, samples: int = 8, seed: int = 1) -> None:
        self.model = onnx.shape_inference.infer_shapes(model)
        self.graph = Graph(self.model)
        self.regions = regions_of(self.graph)
        self.data = Arrays([self.feeds(seed + at) for at in range(samples)])
        self.corrections = Corrections()

    def feeds(self, seed: int) -> Feeds:
        random = np.random.default_rng(seed)
        return {
            each.name: random.standard_normal([axis.dim_value or 1 for axis in each.type.tensor_type.shape.dim]).astype(
                np.float32
            )
            for each in self.model.graph.input
        }

    @cached_property
    def calibration(self) -> Calibration:
        return calibrate(self.graph, self.regions, self.data, range(len(self.data)), runtime=OnnxRuntime(), threads=1)

    def region(self, name: str) -> Region:
        return next(each for each in self.regions if each.name == name)

    def everywhere(self, form: Format) -> dict[str, Format]:
        return {each.name: form for each in self.regions if form in each.formats}

    def recipe(self, placement: Mapping[str, Format], style: Style | None = None) -> Recipe:
        return placed(placement, style or Style(), name="test")

    def lowered(self, recipe: Recipe) -> onnx.ModelProto:
        parameters = parameters_for(self.graph, self.regions, recipe, self.calibration, self.corrections)
        return lower(self.graph, self.regions, recipe, parameters)

    def build(self, placement: Mapping[str, Format], style: Style | None = None) -> onnx.ModelProto:
        return self.lowered(self.recipe(placement, style))

    def sqnr_db(self, model: onnx.ModelProto) -> float:
        """Return the SQNR of a variant's outputs to fp32's over the samples; every one must be finite."""
        return sqnr_db(self.outputs(self.model), self.outputs(model))

    def outputs(self, model: onnx.ModelProto) -> list[Array]:
        session = loaded(model)
        return [each for at in range(len(self.data)) for each in session.run(self.data[at].feeds)]


def sqnr_db(expected: Sequence[Array], got: Sequence[Array]) -> float:
    signal = sum(float((each.astype(np.float64) ** 2).sum()) for each in expected)
    noise = sum(float(((one.astype(np.float64) - two) ** 2).sum()) for one, two in zip(expected, got, strict=True))
    assert np.isfinite(noise)
    return float(10 * np.log10(signal / max(noise, signal * 1e-20)))


def loaded(model: onnx.ModelProto) -> Session:
    return OnnxRuntime().load(bytes(model.SerializeToString()))


def kernels(model: onnx.ModelProto, config: Mapping[str, str] = MappingProxyType({})) -> Counter[str]:
    """Return the operators that ONNX Runtime really runs, before it picks memory layouts."""
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(threads=1, level=Level.EXTENDED)
        for key, value in config.items():
            options.add_session_config_entry(key, value)
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        graph = onnx.load(options.optimized_model_filepath).graph
    return Counter(node.op_type for node in graph.node)


def conv_values(random: np.random.Generator, name: str, out: int, inner: int, kernel: int) -> dict[str, Array]:
    weight = random.standard_normal((out, inner, kernel, kernel)) / np.sqrt(inner * kernel * kernel)
    return {f"{name}_w": weight.astype(np.float32), f"{name}_b": random.standard_normal(out).astype(np.float32) * 0.1}


def conv(name: str, source: str, output: str, *, pad: int = 1, group: int = 1) -> onnx.NodeProto:
    return helper.make_node(
        "Conv", [source, f"{name}_w", f"{name}_b"], [output], name=name, pads=[pad] * 4, group=group
    )


def residual(*, six: bool = True, outputs: Sequence[str] = ("y",)) -> onnx.ModelProto:
    """A small ResNet: stem with Relu, a block with a residual Add, a depthwise Clip(0, 6), pool and Gemm."""
    random = np.random.default_rng(0)
    values = (
        conv_values(random, "stem", 16, 3, 3)
        | conv_values(random, "first", 16, 16, 3)
        | conv_values(random, "second", 16, 16, 3)
        | conv_values(random, "depth", 16, 1, 3)
        | {
            "low": np.array(0, np.float32),
            "high": np.array(6, np.float32),
            "fc_w": random.standard_normal((10, 16)).astype(np.float32),
            "fc_b": random.standard_normal(10).astype(np.float32),
        }
    )
    last = ["Clip", "low", "high"] if six else ["Relu"]
    nodes = [
        conv("stem", "x", "stem"),
        helper.make_node("Relu", ["stem"], ["stem_relu"], name="stem_relu"),
        conv("first", "stem_relu", "first"),
        helper.make_node("Relu", ["first"], ["first_relu"], name="first_relu"),
        conv("second", "first_relu", "second"),
        helper.make_node("Add", ["second", "stem_relu"], ["sum"], name="sum"),
        helper.make_node("Relu", ["sum"], ["sum_relu"], name="sum_relu"),
        conv("depth", "sum_relu", "depth", group=16),
        helper.make_node(last[0], ["depth", *last[1:]], ["depth_act"], name="depth_act"),
        helper.make_node("GlobalAveragePool", ["depth_act"], ["pooled"], name="pooled"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "fc_w", "fc_b"], ["y"], name="y", transB=1),
    ]
    used = values if six else {name: value for name, value in values.items() if name not in ("low", "high")}
    return model_of(nodes, inputs={"x": [1, 3, 16, 16]}, outputs=outputs, values=used)


def products(*, features: int = 128) -> onnx.ModelProto:
    """MatMul with bias, Relu, MatMul without: a transformer's feed-forward part on 6 tokens."""
    random = np.random.default_rng(0)
    values = {
        "up_w": (random.standard_normal((features, 2 * features)) / np.sqrt(features)).astype(np.float32),
        "up_b": random.standard_normal(2 * features).astype(np.float32) * 0.1,
        "down_w": (random.standard_normal((2 * features, features)) / np.sqrt(features)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "up_w"], ["up"], name="up"),
        helper.make_node("Add", ["up", "up_b"], ["up_bias"], name="up_bias"),
        helper.make_node("Relu", ["up_bias"], ["up_relu"], name="up_relu"),
        helper.make_node("MatMul", ["up_relu", "down_w"], ["y"], name="y"),
    ]
    return model_of(nodes, inputs={"x": [1, 6, features]}, outputs=["y"], values=values)


def recurrent(*, hidden: int = 32, inputs: int = 16) -> onnx.ModelProto:
    """One LSTM over 5 steps."""
    random = np.random.default_rng(0)
    values = {
        "w": random.standard_normal((1, 4 * hidden, inputs)).astype(np.float32) * 0.2,
        "r": random.standard_normal((1, 4 * hidden, hidden)).astype(np.float32) * 0.2,
        "b": random.standard_normal((1, 8 * hidden)).astype(np.float32) * 0.1,
    }
    node = helper.make_node("LSTM", ["x", "w", "r", "b"], ["y"], name="y", hidden_size=hidden)
    return model_of([node], inputs={"x": [5, 1, inputs]}, outputs=["y"], values=values)


def conv_chain(seed: int, length: int) -> onnx.ModelProto:
    """A random chain of convolutions, activations, pools and residual adds over 8 channels."""
    random = np.random.default_rng(seed)
    values: dict[str, Array] = conv_values(random, "c0", 8, 3, 3) | {"six": np.array(6, np.float32)}
    values["zero"] = np.array(0, np.float32)
    nodes, at, same_size = [conv("c0", "x", "t0")], "t0", ["t0"]
    for index in range(1, length + 1):
        out = f"t{index}"
        match int(random.integers(8)):
            case 0 | 1:
                values |= conv_values(random, f"c{index}", 8, 8, 3)
                nodes.append(conv(f"c{index}", at, out))
            case 2:
                nodes.append(helper.make_node("Relu", [at], [out], name=out))
            case 3:
                nodes.append(helper.make_node("Clip", [at, "zero", "six"], [out], name=out))
            case 4:
                nodes.append(helper.make_node("Add", [at, str(random.choice(same_size))], [out], name=out))
            case 6:
                nodes.append(helper.make_node("HardSwish", [at], [out], name=out))
            case 5:
                nodes.append(helper.make_node("Sigmoid", [at], [out], name=out))
            case _:
                nodes.append(helper.make_node("MaxPool", [at], [out], name=out, kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
        at = out
        same_size.append(out)
    nodes.append(helper.make_node("GlobalAveragePool", [at], ["y"], name="y"))
    used = {name for node in nodes for name in node.input}
    kept = {name: value for name, value in values.items() if name in used}
    # Now and then a tensor from the middle is an output too.
    outputs = ["y", str(random.choice(same_size))] if random.integers(2) else ["y"]
    return model_of(nodes, inputs={"x": [1, 3, 8, 8]}, outputs=outputs, values=kept)


def gated(*, outputs: Sequence[str] = ("y",)) -> onnx.ModelProto:
    """Conv, SiLU, conv, SiLU."""
    random = np.random.default_rng(5)
    values = conv_values(random, "a", 16, 3, 3) | conv_values(random, "b", 16, 16, 3)
    nodes = []
    for name, source, output in (("a", "x", "middle"), ("b", "middle", "y")):
        nodes += [
            conv(name, source, name),
            helper.make_node("Sigmoid", [name], [f"{name}_sigmoid"], name=f"{name}_sigmoid"),
            helper.make_node("Mul", [name, f"{name}_sigmoid"], [output], name=output),
        ]
    return model_of(nodes, inputs={"x": [1, 3, 16, 16]}, outputs=outputs, values=values)
