"""Read a model file and refuse it where it is broken, hostile or beyond what is supported.

Runs inside the sandbox. Cheap checks with a message of their own come first; what they let through
goes to the checker of ONNX, and then to ONNX Runtime.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from edgewise.errors import ModelError
from edgewise.forge.importing.external import check_external
from edgewise.forge.importing.limits import GIB, MAX_MODEL_BYTES
from edgewise.forge.importing.structure import check_order, check_sizes, check_text
from edgewise.forge.importing.supported import check_supported
from edgewise.forge.importing.tensors import is_external, tensors

_FIRST_LINE = 300
# What people hand over instead of an ONNX file, by how it begins; TFLite says so from byte 4 on.
_OTHERS = (
    (0, b"PK\x03\x04", "a zip archive (a torch checkpoint or a Keras model?)"),
    (0, b"\x89HDF", "an HDF5 file (a Keras model?)"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (4, b"ORTM", "a model in ONNX Runtime's own format"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file that it points to"),
    (0, b"<", "a web page or XML file"),
    (0, b"\x80\x02", "a Python pickle"),
)


def read_checked(path: Path, *, is_variant: bool = False) -> tuple[onnx.ModelProto, int]:
    """Read an ONNX file; return it without external data, and how many bytes of those there are.

    A variant may be quantized, and need not be in float32. Raises ModelError where it is broken, HostileModelError
    where it reaches outside its folder or states absurd sizes.
    """
    model = _parse(path)
    if not model.graph.node:
        raise ModelError(
            f"{path.name}: the graph has no nodes",
            required="an ONNX model with at least one node",
            next_step="check that this is the right file",
        )
    check_text(model, path.name)
    check_sizes(model, path.name)
    check_supported(model, path.name, is_variant=is_variant)
    check_order(model.graph, path.name)
    external = check_external(model, path.parent)
    try:
        onnx.checker.check_model(_for_checker(model, path))
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{path.name}: {_words(error)}",
            required="a valid ONNX model",
            next_step="run onnx.checker on it and export it again",
        ) from error
    return model, external


def _for_checker(model: onnx.ModelProto, path: Path) -> onnx.ModelProto | str:
    """Return what to check: the file, which need not be serialised again, unless it leaves out shapes.

    The checker insists on shapes of inputs and outputs, which runtimes infer and some exporters leave out.
    """
    values = (*model.graph.input, *model.graph.output)
    if all(value.type.tensor_type.HasField("shape") for value in values if value.type.HasField("tensor_type")):
        return str(path)
    stated = onnx.ModelProto()
    stated.CopyFrom(model)
    for value in (*stated.graph.input, *stated.graph.output):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    for tensor in tensors(stated):
        # The checker would look for the files in the folder that this process runs in.
        if is_external(tensor):
            tensor.CopyFrom(onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=[0], raw_data=b""))
    return stated


def _parse(path: Path) -> onnx.ModelProto:
    size = path.stat().st_size
    if size == 0:
        raise ModelError(
            f"{path.name}: the file is empty", required="a whole ONNX file", next_step="export or copy the model again"
        )
    if size > MAX_MODEL_BYTES:
        raise ModelError(
            f"{path.name}: {size / GIB:.1f} GiB",
            required=f"at most {MAX_MODEL_BYTES / GIB:g} GiB, what one ONNX file can hold",
            next_step="check that this is an ONNX file",
        )
    data = path.read_bytes()
    try:
        return onnx.load_model_from_string(data)
    except DecodeError as error:
        other = next((said for at, start, said in _OTHERS if data[at : at + len(start)] == start), None)
        raise ModelError(
            f"{path.name}: not a readable ONNX file" + (f": it looks like {other}" if other else f" ({error})"),
            required="a whole ONNX protobuf",
            next_step="export the model as ONNX" if other else "export it again; copy it again if it was cut short",
        ) from error


def _words(error: Exception) -> str:
    """Return what the checker means: the line that says so, without its own frames."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:_FIRST_LINE]
