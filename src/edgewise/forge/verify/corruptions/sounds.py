"""What happens to sound on its way: noise, room, codec, level, rate. Signals are floats `[samples]` in -1..1."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from scipy import signal as dsp

from edgewise.forge.verify.corruptions.constants import SEVERITIES
from edgewise.runtimes.base import installed, require

Signal = NDArray[np.float64]

SNR_DB = (20.0, 15.0, 10.0, 5.0, 0.0)
ROOMS = ((0.2, 10.0), (0.4, 6.0), (0.6, 3.0), (0.9, 0.0), (1.2, -3.0))
"""Reverberation time RT60 in seconds, energy of the direct sound over that of the room in dB."""
CODECS = ("mu-law", "vorbis", "vorbis, lowest quality", "telephone, mu-law", "telephone, 4 bits")
GAIN_DB = (-6.0, -12.0, -18.0, -24.0, -30.0)
OVERDRIVE_DB = (3.0, 6.0, 9.0, 12.0, 18.0)
RATES = ((3, 4), (1, 2), (3, 8), (1, 4), (1, 5))
"""Share of the sample rate that the sound passes through."""
_TELEPHONE_HZ = (300.0, 3400.0)
_MU = 255.0
QUICK = ("noise", "reverberation", "gain", "sample_rate")


def conditions() -> dict[str, tuple[int, ...]]:
    """Return the severities of each condition; Vorbis needs the extra `audio`."""
    every: dict[str, tuple[int, ...]] = dict.fromkeys(
        ("noise", "reverberation", "codec", "gain", "overdrive", "sample_rate"), SEVERITIES
    )
    return every if installed("soundfile") else every | {"codec": (1, 4, 5)}


def corrupt(x: Signal, name: str, severity: int, *, rate: int, generator: np.random.Generator) -> Signal:
    """Return the signal under one condition, as long as it was and within -1..1."""
    at = severity - 1
    match name:
        case "noise":
            return np.clip(noise(x, SNR_DB[at], generator=generator), -1, 1)
        case "reverberation":
            return np.clip(reverberation(x, *ROOMS[at], rate=rate, generator=generator), -1, 1)
        case "codec":
            return np.clip(codec(x, CODECS[at], rate=rate), -1, 1)
        case "gain":
            return x * 10 ** (GAIN_DB[at] / 20)
        case "overdrive":
            return np.clip(x * 10 ** (OVERDRIVE_DB[at] / 20), -1, 1)
        case _:
            up, down = RATES[at]
            return np.clip(_fitted(dsp.resample_poly(dsp.resample_poly(x, up, down), down, up), len(x)), -1, 1)


def noise(x: Signal, snr_db: float, *, generator: np.random.Generator) -> Signal:
    """Add white noise so that 10 log10(signal power / noise power) is `snr_db`; silence stays silent."""
    draw = generator.standard_normal(x.shape)
    power = float((x**2).mean()) / 10 ** (snr_db / 10)
    return np.asarray(x + draw * np.sqrt(power / float((draw**2).mean())))


def reverberation(x: Signal, rt60: float, direct_db: float, *, rate: int, generator: np.random.Generator) -> Signal:
    """Convolve with a room: the direct sound, then noise that falls by 60 dB in `rt60` seconds (Polack, 1988)."""
    time = np.arange(1, max(round(rt60 * rate), 2)) / rate
    tail = generator.standard_normal(time.size) * np.exp(-3 * np.log(10) * time / rt60)
    tail *= np.sqrt(10 ** (-direct_db / 10) / (tail**2).sum())
    wet = dsp.fftconvolve(x, np.concatenate([[1.0], tail]))[: len(x)]
    loud = float(np.sqrt((wet**2).mean()))
    return wet * (float(np.sqrt((x**2).mean())) / loud) if loud > 0 else wet


def codec(x: Signal, name: str, *, rate: int) -> Signal:
    """Encode and decode: mu-law of ITU-T G.711 (continuous form), Ogg Vorbis, or a telephone's band before mu-law."""
    if name.startswith("vorbis"):
        return _vorbis(x, rate=rate, compression=1.0 if "lowest" in name else 0.7)
    if name.startswith("telephone"):
        high = min(_TELEPHONE_HZ[1], 0.45 * rate)
        x = dsp.sosfilt(dsp.butter(4, (_TELEPHONE_HZ[0], high), btype="bandpass", fs=rate, output="sos"), x)
    return _mu_law(np.clip(x, -1, 1), bits=4 if "4 bits" in name else 8)


def _mu_law(x: Signal, *, bits: int) -> Signal:
    levels = 2 ** (bits - 1) - 1
    small = np.sign(x) * np.log1p(_MU * np.abs(x)) / np.log1p(_MU)
    kept = np.round(small * levels) / levels
    return np.asarray(np.sign(kept) * np.expm1(np.abs(kept) * np.log1p(_MU)) / _MU)


def _vorbis(x: Signal, *, rate: int, compression: float) -> Signal:
    soundfile = require("soundfile", extra="audio")
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(x, -1, 1), rate, format="OGG", subtype="VORBIS", compression_level=compression)
    buffer.seek(0)
    decoded, _ = soundfile.read(buffer, dtype="float64")
    return _fitted(decoded, len(x))


def _fitted(x: Signal, length: int) -> Signal:
    return np.pad(x[:length], (0, max(length - len(x), 0)))
