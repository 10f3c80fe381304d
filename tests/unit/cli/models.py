"""The model that the tests of the command line give it."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from tests.unit.runtimes.models import conv_relu_add


def small() -> onnx.ModelProto:
    """Two convolutions with a residual Add, as a file that the checker of ONNX accepts."""
    model = conv_relu_add()
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 32, 1, 1]))
    return model
