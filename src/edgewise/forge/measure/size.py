"""Size of a variant on disk: the model file and the external data it names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from edgewise.contracts.units import mib
from edgewise.errors import ModelError


def size_mib(model: Path) -> float:
    """Return the size in MiB of an ONNX file and of its external data, each file counted once.

    Raises ModelError where a file is missing or is not an ONNX model.
    """
    try:
        proto = onnx.load(str(model), load_external_data=False)
        files = {model, *(model.parent / location for location in _locations(proto.graph))}
        return mib(sum(each.stat().st_size for each in files))
    except (OSError, DecodeError) as error:
        raise ModelError(
            f"the size of {model} cannot be told: {error}", required="an ONNX file and its data"
        ) from error


def _locations(graph: onnx.GraphProto) -> Iterator[str]:
    for tensor in _tensors(graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield from (each.value for each in tensor.external_data if each.key == "location")


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield the weights and constants of a graph and of its subgraphs."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors(inner)
