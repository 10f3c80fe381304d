"""The demo model, quantized with ONNX Runtime's own tool, and broken on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from edgewise.demo import demo_folder

Images = NDArray[np.float32]
INPUT = "image"
# A plain convolution in the middle, and the classifier.
LAYER = "/layers/layers.5/body/body.6/Conv_output_0"
LAST = "layers.13.weight"


class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped library
    """Hands out images one by one."""

    def __init__(self, images: Images) -> None:
        self._rest: Iterator[Images] = iter(images[:, None])

    def get_next(self) -> dict[str, Images] | None:
        image = next(self._rest, None)
        return None if image is None else {INPUT: image}


def calibration(count: int = 200) -> Images:
    with np.load(demo_folder() / "calibrate.npz") as data:
        images: Images = data["x"][:: 400 // count].astype(np.float32)
    return images


def quantized(images: Images, folder: Path, name: str) -> Path:
    """Quantize the demo model per channel, u8 activations, min-max over `images`."""
    ready, path = folder / "ready.onnx", folder / f"{name}.onnx"
    if not ready.exists():
        quant_pre_process(str(demo_folder() / "model.onnx"), str(ready))
    quantize_static(
        str(ready),
        str(path),
        Reader(images),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return path


def broken(good: Path, name: str, change: Callable[[onnx.ModelProto], None]) -> Path:
    """Write a changed copy beside a good variant."""
    model = onnx.load(str(good))
    change(model)
    path = good.with_name(f"{name}.onnx")
    onnx.save(model, str(path))
    return path


def edit(model: onnx.ModelProto, name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    """Replace the value of one initializer, keeping type and shape."""
    held = next(each for each in model.graph.initializer if each.name == name)
    before = numpy_helper.to_array(held)
    held.CopyFrom(numpy_helper.from_array(change(before.copy()).astype(before.dtype).reshape(before.shape), name))


def weight_of(model: onnx.ModelProto, output: str) -> str:
    """Return the stem of the weight that the operator writing `output` reads."""
    node = next(each for each in model.graph.node if output in each.output)
    maker = next(each for each in model.graph.node if node.input[1] in each.output)
    return str(maker.input[0]).removesuffix("_quantized")
