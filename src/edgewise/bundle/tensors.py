"""Tensors in files of a bundle: placed at multiples of 64 bytes, and read back as arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.bundle.archive import ALIGNMENT
from edgewise.contracts.manifest import DType, TensorPlace
from edgewise.errors import BundleError

Array = NDArray[Any]


def item_bytes(dtype: DType) -> int:
    """Return the bytes of one element; 1 for OPAQUE."""
    return 1 if dtype is DType.OPAQUE else int(np.dtype(dtype.value).itemsize)


def place_tensors(
    tensors: Iterable[tuple[str, DType, tuple[int, ...], bytes]],
) -> tuple[tuple[TensorPlace, ...], bytes]:
    """Return where each tensor lies, and the file they make: (name, type, shape, bytes) one behind the other."""
    data = bytearray()
    places = []
    for name, dtype, shape, content in tensors:
        data.extend(bytes(-len(data) % ALIGNMENT))
        places.append(TensorPlace(name=name, dtype=dtype, shape=shape, offset=len(data), size=len(content)))
        data.extend(content)
    return tuple(places), bytes(data)


def place_arrays(arrays: Iterable[tuple[str, Array]]) -> tuple[tuple[TensorPlace, ...], bytes]:
    """Place numpy arrays; raises ValueError for a type that a bundle has no name for."""
    return place_tensors(
        (name, DType(array.dtype.name), array.shape, _little_endian(array).tobytes()) for name, array in arrays
    )


def read_tensor(data: bytes | memoryview, place: TensorPlace) -> Array:
    """Return a tensor of a file as a read-only array; OPAQUE as uint8."""
    check_place(place, size=len(data))
    dtype = np.dtype("uint8" if place.dtype is DType.OPAQUE else place.dtype.value).newbyteorder("<")
    count = math.prod(place.shape)
    return np.frombuffer(data, dtype, count, place.offset).reshape(place.shape)


def check_place(place: TensorPlace, *, size: int) -> None:
    """Raise BundleError unless a place is aligned, inside a file of `size` bytes, and as long as its shape says."""
    expected = math.prod(place.shape) * item_bytes(place.dtype)
    if (
        min(place.offset, place.size, *place.shape, 0) < 0
        or place.offset % ALIGNMENT
        or place.offset + place.size > size
        or place.size != expected
    ):
        raise BundleError(
            f"tensor {place.name!r} ({place.dtype}{list(place.shape)}) at {place.offset}, {place.size} bytes",
            required=f"{expected} bytes at a multiple of {ALIGNMENT} within a file of {size}",
            next_step="do not use this file",
        )


def _little_endian(array: Array) -> Array:
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")
