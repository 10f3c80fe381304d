"""ONNX operators in torch, as far as image and sensor classifiers need them, with gradients (extra `train`).

Rounding of QuantizeLinear passes gradients straight through inside its range (Bengio et al., 2013), so that the
variant's own graph can be attacked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import onnx

from edgewise.forge.graph import attribute

Tensor = Any
Operator = Callable[[ModuleType, onnx.NodeProto, Sequence[Tensor]], Tensor]

_LIMITS = {"torch.uint8": (0, 255), "torch.int8": (-128, 127), "torch.int32": (-(2**31), 2**31 - 1)}


def _window(torch: ModuleType, node: onnx.NodeProto, x: Tensor, fill: float) -> tuple[Tensor, dict[str, Any]]:
    """Pad as the node says and return what else a pooling or convolution takes. ONNX lists all begins, then ends."""
    rank = x.dim() - 2
    if attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise NotImplementedError(f"{node.op_type} with auto_pad")
    pads = attribute(node, "pads", [0] * (2 * rank))
    flat = [each for axis in reversed(range(rank)) for each in (pads[axis], pads[axis + rank])]
    padded = torch.nn.functional.pad(x, flat, value=fill) if any(flat) else x
    return padded, {"stride": attribute(node, "strides", [1] * rank)}


def _conv(torch: ModuleType, node: onnx.NodeProto, given: Sequence[Tensor]) -> Tensor:
    padded, options = _window(torch, node, given[0], 0.0)
    rank = padded.dim() - 2
    run = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d}[rank]
    bias = given[2] if len(given) > 2 else None
    dilation = attribute(node, "dilations", [1] * rank)
    return run(padded, given[1], bias, dilation=dilation, groups=attribute(node, "group", 1), **options)


def _max_pool(torch: ModuleType, node: onnx.NodeProto, given: Sequence[Tensor]) -> Tensor:
    padded, options = _window(torch, node, given[0], float("-inf"))
    run = {1: torch.nn.functional.max_pool1d, 2: torch.nn.functional.max_pool2d}[padded.dim() - 2]
    ceil = bool(attribute(node, "ceil_mode", 0))
    return run(padded, attribute(node, "kernel_shape"), ceil_mode=ceil, **options)


def _average_pool(torch: ModuleType, node: onnx.NodeProto, given: Sequence[Tensor]) -> Tensor:
    padded, options = _window(torch, node, given[0], 0.0)
    if padded is not given[0] and not attribute(node, "count_include_pad", 0):
        raise NotImplementedError("AveragePool with padding that does not count")
    run = {1: torch.nn.functional.avg_pool1d, 2: torch.nn.functional.avg_pool2d}[padded.dim() - 2]
    ceil = bool(attribute(node, "ceil_mode", 0))
    return run(padded, attribute(node, "kernel_shape"), ceil_mode=ceil, **options)


def _gemm(_: ModuleType, node: onnx.NodeProto, given: Sequence[Tensor]) -> Tensor:
    a = given[0].T if attribute(node, "transA", 0) else given[0]
    b = given[1].T if attribute(node, "transB", 0) else given[1]
    product = attribute(node, "alpha", 1.0) * (a @ b)
    return product + attribute(node, "beta", 1.0) * given[2] if len(given) > 2 else product


def _clip(torch: ModuleType, node: onnx.NodeProto, given: Sequence[Tensor]) -> Tensor:
    low = given[1] if len(given) > 1 and given[1] is not None else attribute(node, "min")
    high = given[2] if len(given) > 2 and given[2] is not None else attribute(node, "max")
    return torch.clamp(given[0], low, high)


def _norm(torch: ModuleType, node: onnx.NodeProto, given: Sequence[Tensor]) -> Tensor:
    x, scale, bias, mean, variance = given
    return torch.nn.functional.batch_norm(x, mean, variance, scale, bias, eps=attribute(node, "epsilon", 1e-5))


def _reshape(_: ModuleType, __: onnx.NodeProto, given: Sequence[Tensor]) -> Tensor:
    sizes = [int(given[0].shape[at]) if size == 0 else size for at, size in enumerate(given[1].tolist())]
    return given[0].reshape(sizes)


def _axes(node: onnx.NodeProto, given: Sequence[Tensor]) -> list[int]:
    if len(given) > 1 and given[1] is not None:
        return [int(each) for each in given[1].tolist()]
    return list(attribute(node, "axes", ()) or range(given[0].dim()))


def _reduce(name: str) -> Operator:
    def run(torch: ModuleType, node: onnx.NodeProto, given: Sequence[Tensor]) -> Tensor:
        keep = bool(attribute(node, "keepdims", 1))
        return getattr(torch, name)(given[0], dim=_axes(node, given), keepdim=keep)

    return run


def _pad(torch: ModuleType, node: onnx.NodeProto, given: Sequence[Tensor]) -> Tensor:
    if attribute(node, "mode", b"constant") != b"constant" or len(given) > 3:
        raise NotImplementedError("Pad that repeats or names axes")
    pads, rank = given[1].tolist(), given[0].dim()
    flat = [each for axis in reversed(range(rank)) for each in (pads[axis], pads[axis + rank])]
    value = float(given[2]) if len(given) > 2 and given[2] is not None else 0.0
    return torch.nn.functional.pad(given[0], flat, value=value)


def _squeeze(_: ModuleType, node: onnx.NodeProto, given: Sequence[Tensor]) -> Tensor:
    return given[0].squeeze(tuple(_axes(node, given)))


def _unsqueeze(_: ModuleType, node: onnx.NodeProto, given: Sequence[Tensor]) -> Tensor:
    x = given[0]
    for axis in sorted(_axes(node, given)):
        x = x.unsqueeze(axis)
    return x


def _flatten(_: ModuleType, node: onnx.NodeProto, given: Sequence[Tensor]) -> Tensor:
    axis, shape = attribute(node, "axis", 1), given[0].shape
    return given[0].reshape(int(shape[:axis].numel()), -1)


def _along(x: Tensor, values: Tensor, node: onnx.NodeProto) -> Tensor:
    """Shape scales or zero points of one axis so that they broadcast."""
    if values.dim() == 0 or values.numel() == 1:
        return values.reshape(())
    axis = attribute(node, "axis", 1) % x.dim()
    return values.reshape([-1 if at == axis else 1 for at in range(x.dim())])


def _quantize(torch: ModuleType, node: onnx.NodeProto, given: Sequence[Tensor]) -> Tensor:
    """Return integers as floats; the rounding is left out of the gradient."""
    x = given[0]
    zero = given[2] if len(given) > 2 else torch.zeros((), dtype=torch.uint8)
    if str(zero.dtype) not in _LIMITS:
        raise NotImplementedError(f"QuantizeLinear to {zero.dtype}")
    scaled = x / _along(x, given[1], node)
    rounded = scaled + (torch.round(scaled) - scaled).detach()
    return torch.clamp(rounded + _along(x, zero, node).float(), *_LIMITS[str(zero.dtype)])


def _dequantize(_: ModuleType, node: onnx.NodeProto, given: Sequence[Tensor]) -> Tensor:
    x = given[0].float()
    if attribute(node, "block_size", 0):
        raise NotImplementedError("DequantizeLinear in blocks")
    shifted = x - _along(x, given[2], node).float() if len(given) > 2 and given[2] is not None else x
    return shifted * _along(x, given[1], node)


OPERATORS: dict[str, Operator] = {
    "Add": lambda _, __, given: given[0] + given[1],
    "AveragePool": _average_pool,
    "BatchNormalization": _norm,
    "Clip": _clip,
    "Concat": lambda torch, node, given: torch.cat(list(given), dim=attribute(node, "axis")),
    "Conv": _conv,
    "DequantizeLinear": _dequantize,
    "Div": lambda _, __, given: given[0] / given[1],
    "Dropout": lambda _, __, given: given[0],
    "Elu": lambda torch, node, given: torch.nn.functional.elu(given[0], attribute(node, "alpha", 1.0)),
    "Erf": lambda torch, _, given: torch.erf(given[0]),
    "Exp": lambda torch, _, given: torch.exp(given[0]),
    "Flatten": _flatten,
    "Gelu": lambda torch, node, given: torch.nn.functional.gelu(
        given[0], approximate=attribute(node, "approximate", b"none").decode()
    ),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda _, __, given: given[0].mean(dim=tuple(range(2, given[0].dim())), keepdim=True),
    "HardSigmoid": lambda torch, node, given: torch.clamp(
        attribute(node, "alpha", 0.2) * given[0] + attribute(node, "beta", 0.5), 0, 1
    ),
    "HardSwish": lambda torch, _, given: torch.nn.functional.hardswish(given[0]),
    "Identity": lambda _, __, given: given[0],
    "LeakyRelu": lambda torch, node, given: torch.nn.functional.leaky_relu(given[0], attribute(node, "alpha", 0.01)),
    "MatMul": lambda _, __, given: given[0] @ given[1],
    "MaxPool": _max_pool,
    "Mul": lambda _, __, given: given[0] * given[1],
    "Pad": _pad,
    "Pow": lambda _, __, given: given[0] ** given[1],
    "QuantizeLinear": _quantize,
    "ReduceMax": _reduce("amax"),
    "ReduceMean": _reduce("mean"),
    "ReduceSum": _reduce("sum"),
    "Relu": lambda torch, _, given: torch.relu(given[0]),
    "Reshape": _reshape,
    "Sigmoid": lambda torch, _, given: torch.sigmoid(given[0]),
    "Softmax": lambda torch, node, given: torch.softmax(given[0], dim=attribute(node, "axis", -1)),
    "Sqrt": lambda torch, _, given: torch.sqrt(given[0]),
    "Squeeze": _squeeze,
    "Sub": lambda _, __, given: given[0] - given[1],
    "Tanh": lambda torch, _, given: torch.tanh(given[0]),
    "Transpose": lambda _, node, given: given[0].permute(
        attribute(node, "perm", list(reversed(range(given[0].dim()))))
    ),
    "Unsqueeze": _unsqueeze,
}
