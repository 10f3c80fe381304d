"""Arrays in requests and answers: JSON, npz, or the bytes of one tensor. What comes in is checked before it is made.

The model says which inputs there are, with type and shape; nothing else is decoded. An npz is read member by member,
so that a header which claims a huge array, or a compressed one that grows, costs no memory.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from edgewise.contracts.base import Value
from edgewise.errors import DataError
from edgewise.runtimes.base import Array

JSON, NPZ, RAW = "application/json", "application/x-npz", "application/octet-stream"
_MOST_HEADER_BYTES = 1024

Specs = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
"""Type and shape of each input, by name."""


class Asked(Value, kw_only=True):
    """A request in JSON. `deadline_ms` counts from the request's arrival."""

    inputs: dict[str, Any]
    deadline_ms: float | None = None


def decode(body: bytes, kind: str, specs: Specs) -> tuple[dict[str, Array], float | None]:
    """Return the inputs, and the deadline where the body holds one. Raises DataError."""
    if kind == JSON:
        return _decode_json(body, specs)
    if kind == NPZ:
        return read_npz(body, specs), None
    if kind == RAW:
        return {_only(specs): _from_bytes(body, specs)}, None
    raise DataError(f"a body of the type {kind[:80]!r}", required=f"{JSON}, {NPZ} or {RAW}")


def _decode_json(body: bytes, specs: Specs) -> tuple[dict[str, Array], float | None]:
    try:
        asked = msgspec.json.decode(body, type=Asked)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"the JSON cannot be read: {error}", required='{"inputs": {"NAME": [...]}}') from error
    _check_names(asked.inputs, specs)
    return {name: _of_lists(name, value, *specs[name]) for name, value in asked.inputs.items()}, asked.deadline_ms


def _of_lists(name: str, value: object, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    try:
        given = np.asarray(value)
    except (ValueError, OverflowError, RecursionError) as error:
        raise _wrong(name, "lists of different lengths, or numbers that are too large", dtype, shape) from error
    kinds = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}.get(dtype.kind, "")
    if given.dtype.kind not in kinds or given.shape != shape:
        raise _wrong(name, f"{given.dtype}{list(given.shape)}", dtype, shape)
    found = given.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(found, given):
        raise _wrong(name, "numbers that the type does not hold", dtype, shape)
    return found


def read_npz(body: bytes, specs: Specs) -> dict[str, Array]:
    """Return the arrays of an npz, which must be exactly the model's inputs. Raises DataError."""
    found = {}
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            members = {each.filename.removesuffix(".npy"): each for each in archive.infolist()}
            _check_names(members, specs)
            for name, member in members.items():
                found[name] = _member(archive, member, name, *specs[name])
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"the npz cannot be read: {error}", required="an npz as numpy.savez writes it") from error
    except Exception as error:  # zlib, lzma and struct have errors of their own
        if isinstance(error, DataError):
            raise
        raise DataError(f"the npz cannot be read: {error}", required="an npz as numpy.savez writes it") from error
    return found


def _member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Array:
    size = math.prod(shape) * dtype.itemsize
    if member.file_size > size + _MOST_HEADER_BYTES:
        raise _wrong(name, f"{member.file_size} bytes", dtype, shape)
    with archive.open(member) as file:
        data = file.read(size + _MOST_HEADER_BYTES + 1)
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        given_shape, is_fortran, given = np.lib.format.read_array_header_1_0(stream)
    else:
        given_shape, is_fortran, given = np.lib.format.read_array_header_2_0(stream)
    rest = data[stream.tell() :]
    if given != dtype or given_shape != shape or len(rest) != size:
        raise _wrong(name, f"{given}{list(given_shape)} in {len(rest)} bytes", dtype, shape)
    return np.frombuffer(rest, dtype).reshape(shape, order="F" if is_fortran else "C")


def _only(specs: Specs) -> str:
    if len(specs) != 1:
        raise DataError(f"the bytes of one tensor for the inputs {', '.join(specs)}", required=f"{JSON} or {NPZ}")
    return next(iter(specs))


def _from_bytes(body: bytes, specs: Specs) -> Array:
    name = _only(specs)
    dtype, shape = specs[name]
    if len(body) != math.prod(shape) * dtype.itemsize:
        raise _wrong(name, f"{len(body)} bytes", dtype, shape)
    return np.frombuffer(body, dtype).reshape(shape)


def _check_names(given: Mapping[str, object], specs: Specs) -> None:
    if given.keys() != specs.keys():
        raise DataError(
            f"the inputs {', '.join(sorted(given))[:300] or '(none)'}", required=f"exactly {', '.join(sorted(specs))}"
        )


def _wrong(name: str, found: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> DataError:
    return DataError(f"input {name}: {found}", required=f"{dtype}{list(shape)}, C order, little-endian")


def to_npz(outputs: Mapping[str, Array]) -> bytes:
    """Return outputs as an npz."""
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **outputs)
    return out.getvalue()


def to_lists(outputs: Mapping[str, Array]) -> dict[str, Any]:
    """Return outputs as lists; what is not finite is null in JSON."""
    return {name: array.tolist() for name, array in outputs.items()}
