"""Whether stored values fit a model's input, and the one place where they are cast to it."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgewise.errors import DataError
from edgewise.forge.tasks.base import Array
from edgewise.runtimes.base import TensorSpec

FLOATS = "f"
INTEGERS = "iub"


def model_dtype(spec: TensorSpec) -> np.dtype[Any]:
    """Return the numpy dtype of a model input; raises DataError for strings, sequences and the like."""
    try:
        dtype = np.dtype(spec.dtype)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in FLOATS + INTEGERS:
        raise DataError(
            f"the model's input {spec.name!r} is of type {spec.dtype}",
            required="a float, integer or bool tensor",
            next_step="use a task of your own (`--task file.py:Class`) that prepares it",
        )
    return dtype


def check_dtype(stored: str, spec: TensorSpec, *, where: str) -> None:
    """Refuse a stored type that would lose its meaning in the model's: floats for ids, text for numbers."""
    have, wanted = np.dtype(stored), model_dtype(spec)
    allowed = {"f": FLOATS + INTEGERS, "b": "b"}.get(wanted.kind, INTEGERS)
    if have.kind not in allowed:
        raise DataError(
            f"{where} is of type {have.name}",
            required=f"{wanted.name} for the model's input {spec.name!r}, or {_words(allowed)}",
            next_step="cast it before numpy.savez",
        )


def takes_rows(shape: tuple[int, ...], spec: TensorSpec) -> bool:
    """Return whether an array `[samples, ...]` holds one `[1, ...]` slice of the input per sample."""
    return len(shape) == len(spec.shape) > 0 and spec.shape[0] in (None, 1) and _matches(shape[1:], spec.shape[1:])


def takes_whole(shape: tuple[int, ...], spec: TensorSpec) -> bool:
    """Return whether an array `[samples, ...]` holds the whole input per sample (inputs without a batch axis)."""
    return len(shape) == len(spec.shape) + 1 and _matches(shape[1:], spec.shape)


def check_shape(shape: tuple[int, ...], spec: TensorSpec, *, where: str) -> None:
    """Refuse rows that do not have the shape of the model's input; None in the spec takes any length."""
    if takes_rows(shape, spec) or takes_whole(shape, spec):
        return
    wanted = spec.shape[1:]
    found = f"{where} has samples of shape {list(shape[1:])}"
    if len(spec.shape) > 0 and spec.shape[0] not in (None, 1) and _matches(shape[1:], wanted):
        raise DataError(
            f"{found}; the model's batch is fixed to {spec.shape[0]}",
            required="a model with a batch of 1 or a dynamic batch",
            next_step="export the model again with a dynamic batch axis",
        )
    raise DataError(
        found,
        required=f"{_text(wanted)} for the model's input {spec.name!r} {_text(spec.shape)}",
        next_step=_layout_hint(shape[1:], wanted),
    )


def can_fail(stored: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Return whether some values of the stored type cannot become the model's: NaN, or out of range."""
    if stored.kind in FLOATS:
        return True
    if wanted.kind in FLOATS:
        return wanted == np.float16 and stored.itemsize > 1
    return stored != wanted


def cast(values: Array, spec: TensorSpec, *, where: str) -> Array:
    """Return values as the model's type, never scaled; raises DataError where they do not fit or are not finite."""
    wanted = model_dtype(spec)
    if wanted.kind in "iu" and values.dtype != wanted and values.size:
        limits = np.iinfo(wanted)
        low, high = int(values.min()), int(values.max())
        if low < limits.min or high > limits.max:
            raise DataError(
                f"{where} holds values from {low} to {high}",
                required=f"{limits.min} to {limits.max}, the range of {wanted.name}",
                next_step="check the samples",
            )
    with np.errstate(over="ignore", invalid="ignore"):
        result = values.astype(wanted, copy=False)
    if wanted.kind in FLOATS and can_fail(values.dtype, wanted) and not np.isfinite(result).all():
        flat = values.reshape(-1)
        bad = flat[~np.isfinite(result.reshape(-1))][0]
        raise DataError(
            f"{where} holds {bad} (the first value that is not a finite {wanted.name})",
            required="finite numbers",
            next_step="remove or repair that sample",
        )
    return result


def _matches(have: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(have) == len(wanted) and all(w is None or h == w for h, w in zip(have, wanted, strict=True))


def _layout_hint(have: tuple[int, ...], wanted: tuple[int | None, ...]) -> str:
    if len(have) == 3:
        if _matches((have[2], have[0], have[1]), wanted):
            return "the samples are HWC and the model wants CHW: x.transpose(0, 3, 1, 2)"
        if _matches((have[1], have[2], have[0]), wanted):
            return "the samples are CHW and the model wants HWC: x.transpose(0, 2, 3, 1)"
    return "prepare the samples as in training"


def _text(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("any" if axis is None else str(axis) for axis in shape) + "]"


def _words(kinds: str) -> str:
    names = {"f": "floats", "i": "integers", "u": "unsigned integers", "b": "bools"}
    return ", ".join(names[kind] for kind in kinds)
