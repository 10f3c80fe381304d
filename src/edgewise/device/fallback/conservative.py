"""The answer that is safe whatever the input is. The application declares it; nothing here makes one up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgewise.contracts.base import Value
from edgewise.device.ready import Ready
from edgewise.errors import ConfigError
from edgewise.runtimes.base import Array


class Conservative(Value, kw_only=True):
    """Either the name of a class of the bundle, or every output as nested lists of numbers."""

    label: str | None = None
    outputs: dict[str, Any] | None = None


def declared(conservative: Conservative, ready: Ready) -> dict[str, Array]:
    """Return the outputs, read-only, in the shapes and types of the model's. Raises ConfigError where they do not fit.

    A label becomes scores of 1 for its class and 0 for the others.
    """
    if (conservative.label is None) == (conservative.outputs is None):
        raise ConfigError("the conservative answer is not one of two things", required="`label` or `outputs`")
    if conservative.label is not None:
        return one_hot(conservative.label, ready)
    return fitted(conservative, ready.session.outputs)


def fitted(
    conservative: Conservative, forms: Mapping[str, tuple[tuple[int, ...] | None, np.dtype[Any]]]
) -> dict[str, Array]:
    """Return the outputs in these shapes and types; a shape is None where it is open. Raises ConfigError."""
    if conservative.outputs is None:
        raise ConfigError(
            f"the class {conservative.label!r} as the conservative answer of several stages",
            required="`outputs`, every one of them",
        )
    given = conservative.outputs
    if given.keys() != forms.keys():
        raise ConfigError(
            f"the conservative answer has the outputs {sorted(given)}", required=f"exactly {sorted(forms)}"
        )
    return {name: _array(name, given[name], *forms[name]) for name in forms}


def one_hot(label: str, ready: Ready) -> dict[str, Array]:
    """Return scores `[classes]`, in the shape of the one output, that name a class. Raises ConfigError."""
    labels = labels_of(ready)
    forms = ready.session.outputs
    if len(forms) != 1 or label not in labels:
        raise ConfigError(
            f"the class {label!r}",
            required="a classifier with one output in a bundle that names its classes"
            + (f": one of {', '.join(labels[:20])}" if labels else ""),
            next_step="give `outputs` instead of `label`",
        )
    ((name, (shape, dtype)),) = forms.items()
    if shape is None or int(np.prod(shape)) != len(labels):
        raise ConfigError(f"the output {name!r} has the shape {shape}", required=f"one score for {len(labels)} classes")
    scores = np.zeros(len(labels), dtype)
    scores[labels.index(label)] = 1
    return {name: _read_only(scores.reshape(shape))}


def labels_of(ready: Ready) -> tuple[str, ...]:
    """Return the names of the classes, none where the bundle does not say them."""
    return () if ready.manifest is None else ready.manifest.postprocessing.labels


def _array(name: str, given: object, shape: tuple[int, ...] | None, dtype: np.dtype[Any]) -> Array:
    try:
        array = np.array(given, np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # found below
            exact = array.astype(dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise ConfigError(
            f"the conservative answer for {name!r} is no array of numbers", required="nested lists of numbers"
        ) from error
    if not np.isfinite(exact).all() or (dtype.kind in "iub" and not np.array_equal(exact, array)):
        raise ConfigError(f"the conservative answer for {name!r} has a value that is no {dtype}")
    if shape is not None and array.shape != shape:
        raise ConfigError(
            f"the conservative answer for {name!r} has the shape {list(array.shape)}", required=f"{list(shape)}"
        )
    return _read_only(exact)


def _read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array
