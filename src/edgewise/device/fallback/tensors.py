"""The generic protocol: the model's tensors as JSON, in and out. Pure: bytes out, bytes in."""

from __future__ import annotations

import base64
import binascii
from typing import Literal

import msgspec
import numpy as np

from edgewise.contracts.base import Value
from edgewise.device.fallback.question import Form, Question
from edgewise.errors import MalformedReplyError
from edgewise.runtimes.base import Array


class Tensor(Value, kw_only=True):
    """An array in C order, little-endian, in base64."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: str


class Asked(Value, kw_only=True):
    """A request."""

    format_version: Literal[1] = 1
    product: str
    bundle: str
    variant: str
    """Which variant was unsure."""
    inputs: tuple[Tensor, ...]


class Answered(Value, kw_only=True):
    """A reply."""

    format_version: Literal[1]
    outputs: tuple[Tensor, ...]


def request(question: Question) -> bytes:
    """Return the body of the request."""
    ready = question.ready
    return msgspec.json.encode(
        Asked(
            product="" if ready.manifest is None else ready.manifest.product,
            bundle=ready.bundle or "",
            variant=ready.variant,
            inputs=tuple(_tensor(name, array) for name, array in question.inputs.items()),
        )
    )


def answer(reply: bytes, question: Question) -> dict[str, Array]:
    """Return the outputs of a reply, read-only.

    Raises MalformedReplyError unless it holds every output once, in the shape and type of the local one, all finite.
    """
    try:
        found = msgspec.json.decode(reply, type=Answered).outputs
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise _malformed("no JSON of tensors") from error
    if sorted(each.name for each in found) != sorted(question.forms):
        raise _malformed("other outputs than the model's")
    return {each.name: _array(each, question.forms[each.name]) for each in found}


def _tensor(name: str, array: Array) -> Tensor:
    data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return Tensor(name=name, dtype=array.dtype.name, shape=array.shape, data=base64.b64encode(data).decode())


def _array(tensor: Tensor, form: Form) -> Array:
    if tensor.shape != form.shape or tensor.dtype != form.dtype.name:
        raise _malformed(f"another shape or type of an output than {form.dtype.name}{list(form.shape)}")
    try:
        data = base64.b64decode(tensor.data, validate=True)
        array = np.frombuffer(data, form.dtype.newbyteorder("<")).reshape(form.shape)
    except (binascii.Error, ValueError) as error:
        raise _malformed("data that are not base64 of the output's size") from error
    if not np.isfinite(array).all():
        raise _malformed("values that are not finite")
    return array


def _malformed(what: str) -> MalformedReplyError:
    return MalformedReplyError(f"the cloud server answered with {what}", required="the model's outputs as JSON")
