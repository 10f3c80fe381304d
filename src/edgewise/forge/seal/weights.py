"""Part a model into its graph and a file of aligned tensors, and see that nothing else changed."""

from __future__ import annotations

import math
import os
from pathlib import Path

import msgspec
import onnx
from google.protobuf.message import DecodeError
from onnx import external_data_helper, numpy_helper

from edgewise.bundle.tensors import place_tensors
from edgewise.contracts.manifest import DType, TensorPlace
from edgewise.errors import ModelError

GRAPH, WEIGHTS = "model.onnx", "weights.bin"
_SMALLEST = 1024
"""Bytes. Shapes, axes and scalars stay in the graph: runtimes want to see them before they read files."""
_LONGEST_NAME = 1024


class Parted(msgspec.Struct, frozen=True, kw_only=True):
    """A graph, its larger tensors in one file (empty where there are none), and where each lies."""

    graph: bytes
    weights: bytes
    tensors: tuple[TensorPlace, ...]


def part(path: Path) -> Parted:
    """Part a model of one file, which was checked before. Raises ModelError where it cannot be read."""
    try:
        model = onnx.load(str(path))
    except (OSError, DecodeError, ValueError) as error:
        raise ModelError(f"{path.name} cannot be read: {error}", next_step="run `edgewise optimize` again") from error
    large = [each for each in model.graph.initializer if _bytes(each) >= _SMALLEST]
    contents = [(each.name[:_LONGEST_NAME], *_content(each)) for each in large]
    tensors, weights = place_tensors(contents)
    for each, where in zip(large, tensors, strict=True):
        # raw_data must be there for the helper, which clears no typed field.
        name, dims, kind = each.name, list(each.dims), each.data_type
        each.Clear()
        each.name, each.data_type = name, kind
        each.dims.extend(dims)
        each.raw_data = b"\0"
        external_data_helper.set_external_data(each, WEIGHTS, offset=where.offset, length=where.size)
        each.ClearField("raw_data")
    return Parted(graph=model.SerializeToString(deterministic=True), weights=weights, tensors=tensors)


def write_parts(parted: Parted, folder: Path) -> Path:
    """Write both files into a folder and return the graph's path, which a runtime can load."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / GRAPH).write_bytes(parted.graph)
    if parted.weights:
        (folder / WEIGHTS).write_bytes(parted.weights)
    return Path(os.fspath(folder / GRAPH))


def _bytes(tensor: onnx.TensorProto) -> int:
    if tensor.data_type == onnx.TensorProto.STRING:
        return 0
    return len(tensor.raw_data) or math.prod(tensor.dims) * numpy_helper.to_array(tensor).itemsize


def _content(tensor: onnx.TensorProto) -> tuple[DType, tuple[int, ...], bytes]:
    """Return a tensor's type, shape and bytes; OPAQUE for types that numpy does not have."""
    array = numpy_helper.to_array(tensor)
    raw = tensor.raw_data or array.tobytes()
    name = array.dtype.name
    is_plain = name in {each.value for each in DType} and len(raw) == array.size * array.itemsize
    return (DType(name), tuple(tensor.dims), raw) if is_plain else (DType.OPAQUE, (len(raw),), raw)
