"""Refuse model files that are broken, hostile or beyond what is supported. Runs inside the sandbox."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from google.protobuf.message import DecodeError

from edgewise.errors import HostileModelError, ModelError

MIN_OPSET = 11
MAX_FILE_BYTES = 2 * 1024**3
MAX_NODES = 200_000
MAX_ELEMENTS = 2**31
_KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "ai.onnx.training", "com.ms.internal.nhwc"})


def read_checked(path: Path) -> tuple[onnx.ModelProto, bool]:
    """Read an ONNX file with its external data; also say whether it has some.

    Raises ModelError where it is broken, HostileModelError where it reaches outside its folder or
    states absurd sizes.
    """
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ModelError(
            f"{path.name}: {size} bytes", required=f"at most {MAX_FILE_BYTES} bytes in one file",
            next_step="store the weights as external data",
        )
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except DecodeError as error:
        raise ModelError(
            f"{path.name}: not a readable ONNX file ({error})", required="a whole ONNX protobuf",
            next_step="export the model again, or copy it again if it was cut short",
        ) from error
    if not model.graph.node:
        raise ModelError(
            f"{path.name}: the graph has no nodes", required="an ONNX model with at least one node",
            next_step="check that this is the right file",
        )
    _check_opset(model, path.name)
    _check_sizes(model, path.name)
    check_external(model, path.parent)
    _check_order(model, path.name)
    try:
        onnx.checker.check_model(model if not has_external(model) else str(path))
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ModelError(
            f"{path.name}: {str(error).strip().splitlines()[0][:300]}",
            required="a valid ONNX model", next_step="run onnx.checker on it and export it again",
        ) from error
    external = has_external(model)
    if external:
        onnx.load_external_data_for_model(model, str(path.parent))
    return model, external


def check_external(model: onnx.ModelProto, folder: Path) -> None:
    """Refuse external data outside of `folder`, through links, or beyond the end of its file."""
    root = folder.resolve()
    for tensor in _all_tensors(model.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {each.key: each.value for each in tensor.external_data}
        location = entries.get("location", "")
        parts = (*PurePosixPath(location).parts, *PureWindowsPath(location).parts)
        if not location or ".." in parts or PurePosixPath(location).is_absolute() or PureWindowsPath(location).drive:
            raise HostileModelError(
                f"tensor {tensor.name!r} keeps its data at {location!r}",
                required="a path inside the model's own folder",
                next_step="do not load this file, or move its data beside it and export it again",
            )
        file = folder / location
        if file.is_symlink() or not file.resolve().is_relative_to(root):
            raise HostileModelError(
                f"tensor {tensor.name!r}: {location!r} is a link", required="a plain file in the model's own folder",
                next_step="replace the link by the file",
            )
        if not file.is_file():
            raise ModelError(
                f"tensor {tensor.name!r}: external data {location!r} not found",
                required="all external data beside the model", next_step="copy the data file next to the model",
            )
        try:
            end = int(entries.get("offset") or 0) + int(entries.get("length") or 0)
        except ValueError as error:
            raise HostileModelError(
                f"tensor {tensor.name!r}: offset or length is not a number", required="byte counts",
                next_step="do not load this file",
            ) from error
        if min(int(entries.get("offset") or 0), int(entries.get("length") or 0)) < 0 or end > file.stat().st_size:
            raise HostileModelError(
                f"tensor {tensor.name!r}: bytes up to {end} of {location!r}, which has {file.stat().st_size}",
                required="data inside the file", next_step="copy the data file again",
            )


def _check_opset(model: onnx.ModelProto, name: str) -> None:
    versions = {each.domain: each.version for each in model.opset_import}
    version = versions.get("", versions.get("ai.onnx", 0))
    if version < MIN_OPSET:
        raise ModelError(
            f"{name}: opset {version}", required=f"opset {MIN_OPSET} or newer",
            next_step="export with a newer opset_version, or convert it with onnx.version_converter",
        )
    unknown = sorted({node.domain for node in model.graph.node} - _KNOWN_DOMAINS - {f.domain for f in model.functions})
    if unknown:
        raise ModelError(
            f"{name}: operators of the domain {unknown[0]!r}", required="standard or ONNX Runtime operators",
            next_step="export without custom operators: edgewise does not load their libraries",
        )


def _check_sizes(model: onnx.ModelProto, name: str) -> None:
    if len(model.graph.node) > MAX_NODES:
        raise HostileModelError(
            f"{name}: {len(model.graph.node)} nodes", required=f"at most {MAX_NODES}", next_step="do not load this file"
        )
    for tensor in _all_tensors(model.graph):
        count = 1
        for axis in tensor.dims:
            if axis < 0:
                raise HostileModelError(
                    f"{name}: tensor {tensor.name!r} has a negative size", required="sizes of 0 or more",
                    next_step="do not load this file",
                )
            count *= axis
        if count > MAX_ELEMENTS:
            raise HostileModelError(
                f"{name}: tensor {tensor.name!r} states {count} elements", required=f"at most {MAX_ELEMENTS}",
                next_step="do not load this file",
            )


def _check_order(model: onnx.ModelProto, name: str) -> None:
    """Refuse cycles, and tensors written twice or read before they exist, with the node's name."""
    known = {each.name for each in (*model.graph.input, *model.graph.initializer)} | {
        each.values.name for each in model.graph.sparse_initializer
    }
    written = {output for node in model.graph.node for output in node.output if output}
    for node in model.graph.node:
        for tensor in node.input:
            if tensor and tensor not in known:
                late = tensor in written
                raise ModelError(
                    f"{name}: node {node.name or node.op_type!r} reads {tensor!r} "
                    + ("before it is written: the graph has a cycle or is out of order" if late else "which nothing writes"),
                    required="an acyclic graph in topological order",
                    next_step="export the model again",
                )
        for tensor in node.output:
            if tensor and tensor in known:
                raise ModelError(
                    f"{name}: tensor {tensor!r} is written twice", required="each tensor written once",
                    next_step="export the model again",
                )
            known.add(tensor)


def has_external(model: onnx.ModelProto) -> bool:
    return any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _all_tensors(model.graph))


def _all_tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    tensors = list(graph.initializer)
    for node in graph.node:
        for each in node.attribute:
            if each.type == onnx.AttributeProto.TENSOR:
                tensors.append(each.t)
            elif each.type == onnx.AttributeProto.GRAPH:
                tensors += _all_tensors(each.g)
            elif each.type == onnx.AttributeProto.GRAPHS:
                for subgraph in each.graphs:
                    tensors += _all_tensors(subgraph)
    return tensors
