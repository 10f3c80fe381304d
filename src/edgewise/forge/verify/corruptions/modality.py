"""Which kind of input a model takes, and what can happen to it.

The rule, first match wins; the input is the only one whose values vary between samples, masks aside:

1. Token numbers (integers `[1, tokens]`): text where the data are sentences, else tokens.
2. Rank 4 with 1 or 3 channels, first or last, and both sides at least 16: an image. With one channel its samples must
   fill a usual pixel range; else it is a spectrogram and counts as features.
3. Floats `[1, n]` or `[1, 1, n]` that come from sound files, or whose every value is one of 16-bit sound: sound.
4. Floats `[1, n]`, `[1, 1, n]`, `[1, channels, n]` with at least 64 readings along the longest axis: a sensor series.
5. Floats of rank 3 or 4 otherwise: features over time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from edgewise.forge.data.files import FileDataset
from edgewise.forge.data.images import ImageDecoder
from edgewise.forge.data.labels import Labelled
from edgewise.forge.data.sounds import SoundDecoder
from edgewise.forge.data.split import Subset
from edgewise.forge.data.text import TextDataset
from edgewise.forge.tasks.base import Array, Feeds
from edgewise.forge.verify.corruptions import images, series, sounds, text
from edgewise.forge.verify.corruptions.pixels import PixelSpace, space_of_options, space_of_samples
from edgewise.forge.verify.subject import Subject

LOOKED_AT = 16
"""So many samples decide."""
SIDE, READINGS = 16, 64
RATE = 16000
"""Taken where the data do not say it."""

Apply = Callable[[str, int, int, Feeds, np.random.Generator], Feeds]
"""Takes condition, severity, the sample's number and its feeds; returns what the model is fed instead."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What can happen to this input: the severities of each condition, and how to apply one."""

    kind: str
    conditions: dict[str, tuple[int, ...]]
    quick: tuple[str, ...]
    apply: Apply
    words: str
    """How the input was understood."""
    missing: dict[str, str] = {}
    """Conditions that cannot be applied here, with the reason."""
    space: PixelSpace | None = None
    name: str = ""
    """The input that is changed."""


def view_of(subject: Subject) -> View | str:
    """Return the view of the subject's input, or the reason why there is none."""
    count = min(LOOKED_AT, len(subject.test))
    feeds = [subject.test[int(at)].feeds for at in np.linspace(0, len(subject.test) - 1, count)]
    varying = [name for name in feeds[0] if "mask" not in name.lower() and _varies([each[name] for each in feeds])]
    numbers = [name for name in varying if feeds[0][name].dtype.kind in "iu" and feeds[0][name].ndim == 2]
    if numbers and len(numbers) == len(varying):
        return _text_view(subject.test, feeds, numbers)
    if len(varying) != 1:
        return f"{len(varying)} inputs vary between samples: only models with one are looked at"
    name = varying[0]
    return _array_view(subject.test, name, [each[name] for each in feeds])


def _array_view(test: Labelled, name: str, samples: Sequence[Array]) -> View | str:
    first, decode = samples[0], _decoder(test)
    space = _image_space(samples, decode)
    if space is not None:
        return _image_view(name, space)
    if first.dtype.kind != "f":
        return f"the input {name!r} is {first.dtype} {list(first.shape)}: neither image, sound, series nor text"
    flat = first.size == first.shape[-1]
    if flat and first.ndim in (2, 3) and (isinstance(decode, SoundDecoder) or _is_sound(samples)):
        return _sound_view(name, decode.options.rate if isinstance(decode, SoundDecoder) else None)
    if (flat or first.ndim == 3) and first.ndim in (2, 3) and max(first.shape) >= READINGS:
        return _series_view(name, series.CONDITIONS, "a series of sensor readings", {})
    if first.ndim in (3, 4) and max(first.shape) >= SIDE:
        reason = "the model takes features, and the sound they were made of is not at hand"
        missing = dict.fromkeys(("noise", "reverberation", "codec", "gain", "sample_rate"), reason)
        return _series_view(name, series.FRAMES, "features over time", missing)
    return f"the input {name!r} {list(first.shape)} has no axis of time or space"


def _image_view(name: str, space: PixelSpace) -> View:
    def apply(condition: str, severity: int, _: int, feeds: Feeds, draw: np.random.Generator) -> Feeds:
        changed = images.corrupt(space.pixels(feeds[name]), condition, severity, generator=draw)
        return {**feeds, name: space.values(changed, feeds[name])}

    return View(
        kind="image",
        conditions=images.conditions_of(len(space.low)),
        quick=images.QUICK,
        apply=apply,
        words=f"an image, {space.words}",
        space=space,
        name=name,
    )


def _sound_view(name: str, rate: int | None) -> View:
    def apply(condition: str, severity: int, _: int, feeds: Feeds, draw: np.random.Generator) -> Feeds:
        wave = feeds[name]
        heard = sounds.corrupt(
            wave.reshape(-1).astype(np.float64), condition, severity, rate=rate or RATE, generator=draw
        )
        return {**feeds, name: heard.reshape(wave.shape).astype(wave.dtype)}

    words = f"a sound at {rate} Hz" if rate else f"a sound; its rate is not known and taken as {RATE} Hz"
    return View(kind="sound", conditions=sounds.conditions(), quick=sounds.QUICK, apply=apply, words=words, name=name)


def _series_view(name: str, conditions: dict[str, tuple[int, ...]], words: str, missing: dict[str, str]) -> View:
    def apply(condition: str, severity: int, _: int, feeds: Feeds, draw: np.random.Generator) -> Feeds:
        readings = feeds[name]
        time = int(np.argmax(readings.shape))
        by_time = np.moveaxis(readings.astype(np.float64), time, -1)
        changed = series.corrupt(by_time.reshape(-1, by_time.shape[-1]), condition, severity, generator=draw)
        back = np.moveaxis(changed.reshape(by_time.shape), -1, time)
        return {**feeds, name: np.ascontiguousarray(back.astype(readings.dtype))}

    return View(
        kind="series", conditions=conditions, quick=tuple(conditions), apply=apply, words=words, missing=missing,
        name=name,
    )  # fmt: skip


def _text_view(test: Labelled, feeds: Sequence[Feeds], numbers: Sequence[str]) -> View:
    if isinstance(_origin(test, 0)[0], TextDataset):

        def write(condition: str, severity: int, index: int, _: Feeds, draw: np.random.Generator) -> Feeds:
            dataset, at = _origin(test, index)
            assert isinstance(dataset, TextDataset)  # noqa: S101 - the view was made because it is
            changed = text.corrupt_text(dataset.sentence(at), condition, severity, generator=draw)
            return dataset.encode(changed, where=f"sentence {at} with {condition}")

        return View(kind="text", conditions=text.TEXT, quick=tuple(text.TEXT), apply=write, words="sentences")
    name = next((each for each in numbers if "type" not in each.lower()), numbers[0])
    pool = np.unique(np.concatenate([each[name].reshape(-1) for each in feeds]))

    def replace(_: str, severity: int, __: int, given: Feeds, draw: np.random.Generator) -> Feeds:
        ids = given[name].reshape(-1)
        used = _used(given, name)
        changed = ids.copy()
        changed[used] = text.replace_tokens(ids[used], text.REPLACED[severity - 1], pool, generator=draw)
        return {**given, name: changed.reshape(given[name].shape).astype(given[name].dtype)}

    reason = "only token numbers are at hand, not the text"
    return View(
        kind="tokens",
        conditions=text.TOKENS,
        quick=tuple(text.TOKENS),
        apply=replace,
        words="token numbers",
        missing=dict.fromkeys(text.TEXT, reason),
        name=name,
    )


def _used(feeds: Feeds, name: str) -> Array:
    """Return the places of tokens that no mask hides."""
    masks = [each for key, each in feeds.items() if "mask" in key.lower() and each.shape == feeds[name].shape]
    return np.flatnonzero(masks[0].reshape(-1)) if masks else np.arange(feeds[name].size)


def _image_space(samples: Sequence[Array], decode: object) -> PixelSpace | None:
    first = samples[0]
    if first.ndim not in (3, 4) or first.shape[0] != 1:
        return None
    if isinstance(decode, ImageDecoder):
        return space_of_options(decode.options, channels=decode.channels)
    if first.ndim == 3:
        return None
    for channels_first in (True, False):
        channels = first.shape[1] if channels_first else first.shape[3]
        sides = first.shape[2:] if channels_first else first.shape[1:3]
        if channels in (1, 3) and min(sides) >= SIDE:
            space = space_of_samples(samples, channels=channels, channels_first=channels_first)
            return space if channels == 3 or space.is_known else None
    return None


def _is_sound(samples: Sequence[Array]) -> bool:
    """Return whether every value is a multiple of 2^-15 within -1..1, as 16-bit sound decodes."""
    values = np.concatenate([each.reshape(-1) for each in samples]).astype(np.float64)
    steps = values * 2**15
    return bool(np.abs(values).max() <= 1 and np.abs(steps - np.round(steps)).max() < 1e-3 and values.any())


def _varies(samples: Sequence[Array]) -> bool:
    first = samples[0]
    return len(samples) == 1 or any(each.shape != first.shape or (each != first).any() for each in samples[1:])


def _origin(test: Labelled, index: int) -> tuple[Labelled, int]:
    return test.origin(index) if isinstance(test, Subset) else (test, index)


def _decoder(test: Labelled) -> object:
    dataset = _origin(test, 0)[0]
    return dataset.decode if isinstance(dataset, FileDataset) else None
