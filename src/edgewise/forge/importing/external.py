"""Refuse external data that lies outside of the model's own folder or that is not there."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx

from edgewise.errors import HostileModelError, ModelError
from edgewise.forge.importing.tensors import external_entries, is_external, stated_bytes, tensors


def check_external(model: onnx.ModelProto, folder: Path) -> int:
    """Return the bytes of external data. Raises HostileModelError or ModelError; nothing is read."""
    return sum(_check(tensor, folder) for tensor in tensors(model) if is_external(tensor))


def load_external(model: onnx.ModelProto, folder: Path) -> None:
    """Read checked external data into the model, so that it is as if they had always stood there."""
    onnx.load_external_data_for_model(model, str(folder))
    for tensor in tensors(model):
        # Present although default, it would give another digest.
        tensor.ClearField("data_location")


def _check(tensor: onnx.TensorProto, folder: Path) -> int:
    entries = external_entries(tensor)
    location = entries.get("location", "")
    _check_location(tensor.name, location)
    file = folder / location
    if file.is_symlink() or not file.resolve().is_relative_to(folder.resolve()):
        raise HostileModelError(
            f"tensor {tensor.name!r}: {location!r} is a link",
            required="a plain file in the model's own folder",
            next_step="replace the link by the file",
        )
    if not file.is_file():
        raise ModelError(
            f"tensor {tensor.name!r}: external data {location!r} not found",
            required="all external data beside the model",
            next_step="copy the data file next to the model",
        )
    return _check_range(tensor, entries, file)


def _check_location(name: str, location: str) -> None:
    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    outside = ".." in (*posix.parts, *windows.parts) or posix.is_absolute() or windows.anchor
    if not location or "\0" in location or outside:
        raise HostileModelError(
            f"tensor {name!r} keeps its data at {location!r}",
            required="a path inside the model's own folder",
            next_step="do not load this file, or move its data beside it and export it again",
        )


def _check_range(tensor: onnx.TensorProto, entries: dict[str, str], file: Path) -> int:
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or 0)
    except ValueError as error:
        raise HostileModelError(
            f"tensor {tensor.name!r}: offset {entries.get('offset')!r}, length {entries.get('length')!r}",
            required="whole numbers of bytes",
            next_step="do not load this file",
        ) from error
    stated = stated_bytes(tensor)
    needed = length or stated or 0
    held = file.stat().st_size
    if min(offset, length) < 0 or offset + needed > held:
        raise HostileModelError(
            f"tensor {tensor.name!r}: {needed} bytes from byte {offset} of {file.name!r}, which has {held}",
            required="data inside the file",
            next_step="copy the data file again, or do not load this model",
        )
    if stated is None or (length and length != stated):
        raise ModelError(
            f"tensor {tensor.name!r}: {length} bytes of external data for sizes {list(tensor.dims)}",
            required=f"{stated} bytes" if stated is not None else "numbers: text cannot be external",
            next_step="export the model again",
        )
    return needed
