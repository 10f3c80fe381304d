"""From a sound file to a model's input: mono float32 between -1 and 1.

PCM in wav needs nothing but Python; other files the extra `audio` (soundfile).
"""

from __future__ import annotations

import wave
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.task import AudioOptions
from edgewise.errors import DataError, MissingExtraError
from edgewise.forge.data.fit import cast, check_shape
from edgewise.forge.tasks.base import Array
from edgewise.runtimes.base import TensorSpec, require

MOST_VALUES = 1 << 27
"""Samples times channels: 70 minutes of stereo at 16 kHz; compressed files can unpack to far more."""

Signal = NDArray[np.float32]


class SoundDecoder(msgspec.Struct, frozen=True, kw_only=True):
    """Decodes one file for one model input. Made by `sound_decoder`."""

    options: AudioOptions
    spec: TensorSpec

    def __call__(self, path: Path) -> Array:
        """Return the input `[1, samples]` or `[1, 1, samples]`, cut or padded at the end; raises DataError."""
        signal, rate = read_sound(path)
        if rate != self.options.rate:
            raise DataError(
                f"{path} has {rate} samples per second",
                required=f"{self.options.rate}",
                next_step="resample it, or set [task.audio] rate to what the model was trained on",
            )
        length = self.options.samples if self.options.samples is not None else self.spec.shape[-1]
        if length is not None:
            signal = np.pad(signal[:length], (0, max(0, length - len(signal))))
        batch = signal.reshape([1] * (len(self.spec.shape) - 1) + [-1])
        try:
            check_shape(batch.shape, self.spec, where=str(path))
        except DataError as error:
            raise DataError(error.found, required=error.required, next_step="set [task.audio] samples") from error
        return cast(batch, self.spec, where=str(path))


def sound_decoder(options: AudioOptions, spec: TensorSpec) -> SoundDecoder:
    """Check the options against the model's input; raises DataError where they do not go together."""
    if len(spec.shape) not in (2, 3) or not spec.dtype.startswith("float"):
        raise DataError(
            f"the model's input {spec.name!r} is {spec.dtype} of shape {list(spec.shape)}",
            required="a waveform: floats [1, samples] or [1, 1, samples]",
            next_step="store the features that the model takes in an npz, or write a task of your own",
        )
    if options.rate <= 0 or (options.samples is not None and options.samples <= 0):
        raise DataError("[task.audio] rate or samples is not positive", required="at least 1", next_step="correct it")
    return SoundDecoder(options=options, spec=spec)


def read_sound(path: Path) -> tuple[Signal, int]:
    """Return a file's signal, its channels averaged, and its rate in Hz; raises DataError."""
    try:
        if path.suffix.lower() == ".wav":
            try:
                return _read_wav(path)
            except wave.Error:  # not PCM: soundfile knows more
                return _read_any(path)
        return _read_any(path)
    except (DataError, MissingExtraError):
        raise
    except Exception as error:
        raise DataError(f"{path} is not a readable sound: {error}", next_step="remove or repair it") from error


def _read_wav(path: Path) -> tuple[Signal, int]:
    with wave.open(str(path), "rb") as file:
        width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
        _check_size(path, file.getnframes() * channels)
        raw = file.readframes(file.getnframes())
    return _mono(_floats(raw[: len(raw) // (width * channels) * width * channels], width), channels, path), rate


def _floats(raw: bytes, width: int) -> Signal:
    """Return little-endian PCM of 1 (unsigned), 2, 3 or 4 bytes as floats."""
    match width:
        case 1:
            return (np.frombuffer(raw, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)
        case 2:
            return np.frombuffer(raw, "<i2").astype(np.float32) / np.float32(2**15)
        case 3:
            padded = np.zeros((len(raw) // 3, 4), np.uint8)
            padded[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
            return padded.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)
        case 4:
            return np.frombuffer(raw, "<i4").astype(np.float32) / np.float32(2**31)
    raise wave.Error(f"{width} bytes per sample")


def _read_any(path: Path) -> tuple[Signal, int]:
    soundfile = require("soundfile", extra="audio")
    with soundfile.SoundFile(str(path)) as file:
        _check_size(path, file.frames * file.channels)
        signal = file.read(dtype="float32", always_2d=True)
        return _mono(signal.reshape(-1), file.channels, path), int(file.samplerate)


def _mono(signal: Signal, channels: int, path: Path) -> Signal:
    if not signal.size:
        raise DataError(f"{path} holds no sound", required="at least one sample", next_step="remove it")
    return signal if channels == 1 else np.asarray(signal.reshape(-1, channels).mean(1), np.float32)


def _check_size(path: Path, values: int) -> None:
    if values > MOST_VALUES:
        raise DataError(f"{path} has {values} samples", required=f"at most {MOST_VALUES}", next_step="cut it")
