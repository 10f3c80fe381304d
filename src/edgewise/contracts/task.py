"""What a task is, as written in edgewise.toml: its kind, its data and its options."""

from __future__ import annotations

from enum import StrEnum

from edgewise.contracts.base import Value


class TaskKind(StrEnum):
    """The tasks with a metric of their own; anything else is a user's `file.py:Class`."""

    CLASSIFICATION = "classification"
    DETECTION = "detection"
    EMBEDDING = "embedding"
    SPEECH = "speech"
    ANOMALY = "anomaly"
    LANGUAGE = "language"


class DetectionOptions(Value, kw_only=True):
    """How raw outputs become boxes. Sizes in pixels of the model's input."""

    layout: str = "auto"
    """`yolox` (grid-relative centres, log sizes, objectness and class scores), `boxes`
    (x1 y1 x2 y2 score class), or `auto`: yolox where the number of rows is that of its strides."""
    strides: tuple[int, ...] = (8, 16, 32)
    threshold: float = 0.01
    overlap: float = 0.65


class ImageOptions(Value, kw_only=True):
    """How an image file becomes an input: resized, centre-cropped, `(pixel / scale - mean) / std`."""

    resize: int | None = None
    """Length of the shorter side after resizing; None keeps the size."""
    crop: int | None = None
    scale: float = 255.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: str = "nchw"


class AudioOptions(Value, kw_only=True):
    """How a sound file becomes an input: mono float32 at `rate` Hz, cut or padded to `samples`."""

    rate: int = 16000
    samples: int | None = None


class TextOptions(Value, kw_only=True):
    """How text becomes token ids: a `tokenizer.json` and a length in tokens."""

    tokenizer: str | None = None
    max_tokens: int = 128


class TaskConfig(Value, kw_only=True):
    """The `[task]` section. Paths are relative to the file that holds them."""

    kind: str | None = None
    """One of TaskKind, or `file.py:Class`; None infers it from the model's outputs."""
    calibrate: str
    select: str | None = None
    """A split of its own for the search; without it a seeded part of `calibrate` is set aside."""
    test: str | None = None
    samples: int = 512
    """At most so many calibration samples are used, chosen from the pool."""
    detection: DetectionOptions = DetectionOptions()
    image: ImageOptions = ImageOptions()
    audio: AudioOptions = AudioOptions()
    text: TextOptions = TextOptions()
