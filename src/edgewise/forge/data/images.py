"""From an image file to a model's input: resize, crop, scale, normalise (extra `forge`: Pillow)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgewise.contracts.task import ImageOptions
from edgewise.errors import DataError
from edgewise.forge.data.fit import cast, check_shape, model_dtype
from edgewise.forge.tasks.base import Array
from edgewise.runtimes.base import TensorSpec, require

MOST_BYTES = 256 * 1024 * 1024
MOST_PIXELS = 1 << 26
"""64 megapixels: a file of a few kilobytes can unpack to gigabytes."""
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF")
_MODES = {1: "L", 3: "RGB"}


class ImageDecoder(msgspec.Struct, frozen=True, kw_only=True):
    """Decodes one image for one model input. Made by `image_decoder`."""

    options: ImageOptions
    spec: TensorSpec
    channels: int

    def __call__(self, path: Path) -> Array:
        """Return the input `[1, channels, height, width]`, or with channels last; raises DataError."""
        pixels = _pixels(path, self.options, _MODES[self.channels])
        values = pixels.astype(np.float32) if model_dtype(self.spec).kind == "f" else pixels
        if model_dtype(self.spec).kind == "f":
            values = (values / np.float32(self.options.scale) - _row(self.options.mean)) / _row(self.options.std)
        if self.options.layout == "nchw":
            values = values.transpose(2, 0, 1)
        if len(self.spec.shape) == 3:
            values = values.reshape(pixels.shape[:2])
        batch = np.ascontiguousarray(values[None])
        try:
            check_shape(batch.shape, self.spec, where=str(path))
        except DataError as error:
            raise DataError(
                error.found,
                required=error.required,
                next_step="set [task.image] resize, crop and layout as in training",
            ) from error
        return cast(batch, self.spec, where=str(path))


def image_decoder(options: ImageOptions, spec: TensorSpec) -> ImageDecoder:
    """Check the options against the model's input; raises DataError where they do not go together."""
    if options.layout not in ("nchw", "nhwc"):
        raise _wrong(f"[task.image] layout is {options.layout!r}", "nchw or nhwc")
    if len(spec.shape) not in (3, 4):
        raise _wrong(f"the model's input {spec.name!r} has shape {list(spec.shape)}", "an image: rank 4, or 3 if grey")
    channels: int | None = 1
    if len(spec.shape) == 4:
        channels = spec.shape[1 if options.layout == "nchw" else 3]
    if channels is None:
        channels = 3
    if channels not in _MODES:
        raise _wrong(
            f"the model's input {spec.name!r} {list(spec.shape)} has {channels} channels if it is {options.layout}",
            "1 (grey) or 3 (RGB) channels; perhaps [task.image] layout is the other one",
        )
    for name, values in (("mean", options.mean), ("std", options.std)):
        if len(values) not in (1, channels):
            raise _wrong(f"[task.image] {name} has {len(values)} values", f"1 or {channels}")
    if options.scale == 0 or 0 in options.std:
        raise _wrong("[task.image] scale or std is 0", "numbers to divide by")
    return ImageDecoder(options=options, spec=spec, channels=channels)


def _pixels(path: Path, options: ImageOptions, mode: str) -> Array:
    """Return pixels `[height, width, channels]` uint8, resized and cropped."""
    library = require("PIL.Image", extra="forge")
    try:
        _check_size(path, path.stat().st_size, MOST_BYTES, "bytes")
        with library.open(path, formats=_FORMATS) as image:
            _check_size(path, image.width * image.height, MOST_PIXELS, "pixels")
            framed = _framed(path, image.convert(mode), options, bilinear=library.Resampling.BILINEAR)
            return np.asarray(framed, np.uint8).reshape(framed.height, framed.width, len(mode))
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{path} is not a readable image: {error}",
            required=f"one of {', '.join(_FORMATS)}",
            next_step="remove or repair it",
        ) from error


def _check_size(path: Path, found: int, most: int, unit: str) -> None:
    if found > most:
        raise DataError(f"{path} has {found} {unit}", required=f"at most {most}", next_step="scale it down before")


def _framed(path: Path, image: Any, options: ImageOptions, *, bilinear: Any) -> Any:
    """Return the image with its shorter side resized, then its centre cut out."""
    if options.resize is not None:
        scale = options.resize / min(image.size)
        image = image.resize([max(options.resize, round(side * scale)) for side in image.size], bilinear)
    if options.crop is None:
        return image
    if min(image.size) < options.crop:
        raise DataError(
            f"{path} has {image.width} x {image.height} pixels",
            required=f"at least {options.crop} on either side, to crop",
            next_step="set [task.image] resize",
        )
    left, top = (image.width - options.crop) // 2, (image.height - options.crop) // 2
    return image.crop((left, top, left + options.crop, top + options.crop))


def _row(values: tuple[float, ...]) -> Array:
    return np.asarray(values, np.float32)


def _wrong(found: str, required: str) -> DataError:
    return DataError(found, required=required, next_step="correct [task.image], or store prepared samples in an npz")
