"""Inputs as pictures: images as PNG, signals as curves, anything else as text."""

from __future__ import annotations

import base64
import io
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgewise.forge.report.markup import Html, tag

Array = NDArray[Any]

_ACROSS = 144
"""Pixels that a small picture is enlarged to, and a large one reduced to."""
_CHANNELS = (1, 3, 4)
_MOST_VALUES = 32


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """One input of a model, to be shown.

    `array` is an image `[H, W]`, `[H, W, C]` or `[C, H, W]` (C of 1, 3 or 4), a signal `[T]` or
    `[1, T]`, or anything else, without the batch axis. `captions` stand below it, a line each.
    """

    index: int
    array: Array
    captions: tuple[str, ...] = ()


def drawn(picture: Picture) -> Html:
    """Return the picture as markup that loads nothing."""
    array = np.asarray(picture.array)
    label = f"test sample {picture.index}"
    if array.size == 0:
        return tag("div", "empty", class_="text")
    if (image := _image(array)) is not None:
        return tag("img", alt=label, src=f"data:image/png;base64,{base64.b64encode(_png(image)).decode()}")
    flat = array.reshape(-1)
    if flat.size > _MOST_VALUES and max(array.shape) == flat.size and np.issubdtype(array.dtype, np.floating):
        return _curve(flat, label)
    shown = ", ".join(f"{each:.4g}" if isinstance(each, float) else str(each) for each in flat[:_MOST_VALUES].tolist())
    more = f", ... ({flat.size} values)" if flat.size > _MOST_VALUES else ""
    return tag("div", shown + more, class_="text")


def _image(array: Array) -> Array | None:
    """Return `[H, W]` or `[H, W, 3]` of uint8, or None where the array is no image."""
    if array.ndim == 3 and array.shape[0] in _CHANNELS and array.shape[2] not in _CHANNELS:
        array = np.moveaxis(array, 0, 2)
    if array.ndim == 3 and array.shape[2] in _CHANNELS:
        array = array[:, :, 0] if array.shape[2] == 1 else array[:, :, :3]
    elif array.ndim != 2 or min(array.shape) == 1:
        return None
    if not (np.issubdtype(array.dtype, np.number) or array.dtype == np.bool_):
        return None
    if array.dtype == np.uint8:
        return array
    # Normalised inputs have lost their scale: the darkest and the lightest value become black and white.
    values = np.nan_to_num(array.astype(np.float64))
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return np.round(scaled * 255).astype(np.uint8)


def _png(image: Array) -> bytes:
    picture = Image.fromarray(image)
    largest = max(picture.size)
    factor = max(1, round(_ACROSS / largest)) if largest < _ACROSS else _ACROSS * 2 / largest
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    if largest < _ACROSS or factor < 1:
        picture = picture.resize(size, Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _curve(values: Array, label: str) -> Html:
    """Return a signal as its envelope: the least and the greatest value of each column."""
    parts = np.array_split(np.nan_to_num(values.astype(np.float64)), min(values.size, _ACROSS))
    low, high = float(min(each.min() for each in parts)), float(max(each.max() for each in parts))
    span = high - low or 1.0
    step = _ACROSS / len(parts)

    def at(column: int, value: float) -> str:
        return f"{column * step:.1f},{60 - (value - low) / span * 56 - 2:.1f}"

    upper = [at(column, float(each.max())) for column, each in enumerate(parts)]
    lower = [at(column, float(each.min())) for column, each in enumerate(parts)]
    points = " ".join([*upper, *reversed(lower)])
    return tag(
        "svg",
        tag("polygon", points=points),
        class_="curve",
        viewBox=f"0 0 {_ACROSS} 60",
        role="img",
        aria_label=label,
    )
