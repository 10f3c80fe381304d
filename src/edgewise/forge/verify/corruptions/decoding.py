"""Other ways to the same picture: resize filter, JPEG decoder, colour order. Extra `forge` (Pillow).

Nothing here is bad weather: a device that decodes or scales with another library than the workstation does this to
every input (the noises of Wang et al., "SysNoise", MLSys 2023).
Pictures are floats `[height, width, channels]` in 0..1.
"""

from __future__ import annotations

import numpy as np

from edgewise.forge.verify.corruptions.digital import as_image, as_picture, jpeg_round_trip
from edgewise.forge.verify.corruptions.noise import Picture
from edgewise.runtimes.base import require

FILTERS = ("LANCZOS", "HAMMING", "BILINEAR", "BOX", "NEAREST")
"""The filter of each severity. Bicubic, which most training pipelines use, makes the enlarged picture."""
ENLARGED = 8 / 7
"""256 to 224 pixels, the usual resize before a crop."""
QUALITY = 95
STEPS = ("4:4:4", "4:2:2", "4:2:0", "4:2:0 repeated", "4:2:0 repeated, 16..235")
"""What each severity of `jpeg_decoder` does to the chroma."""

# ITU-R BT.601, as JPEG (JFIF) uses it.
_TO_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_FROM_YCBCR = np.linalg.inv(_TO_YCBCR)


def resize_filter(x: Picture, name: str) -> Picture:
    """Enlarge by 8/7 with a bicubic filter and come back with another one."""
    library = require("PIL.Image", extra="forge")
    height, width = x.shape[:2]
    larger = as_image(x).resize((round(width * ENLARGED), round(height * ENLARGED)), library.Resampling.BICUBIC)
    return as_picture(larger.resize((width, height), library.Resampling[name]))


def jpeg_decoder(x: Picture, step: str) -> Picture:
    """Decode at quality 95 with less and less chroma.

    The first three are written and read by libjpeg, which interpolates the chroma. Decoders that repeat it instead
    (hardware, "fancy upsampling" off) are the last two; the very last also passes through the range 16..235 with
    eight bits, as video pipelines (NV12) do.
    """
    if x.shape[2] == 1 or "repeated" not in step:
        subsampling = {} if x.shape[2] == 1 else {"subsampling": step}
        return as_picture(jpeg_round_trip(as_image(x), quality=QUALITY, **subsampling))
    ycbcr = as_picture(jpeg_round_trip(as_image(x), quality=QUALITY, subsampling="4:4:4")) @ _TO_YCBCR.T
    ycbcr[..., 1:] = _repeated(ycbcr[..., 1:])
    if "16..235" in step:
        scale = np.array([219.0, 224.0, 224.0])
        ycbcr = np.round(ycbcr * scale) / scale
    else:
        ycbcr = np.round(ycbcr * 255) / 255
    return np.asarray(np.clip(ycbcr @ _FROM_YCBCR.T, 0, 1))


def _repeated(chroma: Picture) -> Picture:
    """Return chroma averaged over 2 x 2 pixels and repeated; an odd last row or column stands alone."""
    height, width = chroma.shape[:2]
    padded = np.pad(chroma, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2, 2).mean(axis=(1, 3))
    return np.asarray(blocks.repeat(2, axis=0).repeat(2, axis=1)[:height, :width])
