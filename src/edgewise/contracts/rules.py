"""What each key of `edgewise.toml` may hold, in words for a message and as a check.

One rule per key, in `RULES`; the reference page and the messages of `contracts.toml_` say the same
words. A rule sees the raw TOML value, so it judges the type, the range and the choice at once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from edgewise.contracts.project import Effort
from edgewise.contracts.target import RuntimeName
from edgewise.contracts.task import TaskKind

Path = tuple[str, ...]
"""Where a key stands: `("budget", "latency_p99_ms")`."""

KINDS = (*TaskKind, "generic")
"""The tasks by name; `generic` has no metric and compares outputs alone."""
MOST_THREADS = 1024
MOST_SEEDS = 2**32

TIME = MappingProxyType({"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3})
"""Milliseconds in one of each."""
SIZE = MappingProxyType(
    {
        "b": 2**-20,
        "kb": 1e3 / 2**20,
        "kib": 2**-10,
        "mb": 1e6 / 2**20,
        "mib": 1.0,
        "gb": 1e9 / 2**20,
        "gib": 2.0**10,
    }
)
"""MiB in one of each."""
ENERGY = MappingProxyType({"uj": 1e-3, "µj": 1e-3, "mj": 1.0, "j": 1e3})
"""Millijoules in one of each."""
SHARE = MappingProxyType({"%": 1e-2})
"""Shares of one in one of each."""


class Rule(NamedTuple):
    """What a key may hold. `units` turns a value written with a unit into the key's own."""

    words: str
    holds: Callable[[object], bool]
    choices: tuple[str, ...] = ()
    units: Mapping[str, float] = MappingProxyType({})


def _number(value: object) -> float | None:
    """Return a finite TOML number; a boolean is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # TOML integers have no bound
        return None
    return number if math.isfinite(number) else None


def _above(low: float, words: str, units: Mapping[str, float] = MappingProxyType({})) -> Rule:
    return Rule(words, lambda value: (number := _number(value)) is not None and number > low, units=units)


def _between(low: float, high: float, words: str, units: Mapping[str, float] = MappingProxyType({})) -> Rule:
    return Rule(words, lambda value: (number := _number(value)) is not None and low <= number <= high, units=units)


def _is_whole(value: object, low: int, high: float = 2**31 - 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _whole(low: int, words: str, high: float = 2**31 - 1) -> Rule:
    return Rule(words, lambda value: _is_whole(value, low, high))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


def _text(words: str) -> Rule:
    return Rule(words, _is_text)


def _choice(choices: tuple[str, ...]) -> Rule:
    return Rule("one of " + ", ".join(f'"{each}"' for each in choices), lambda value: value in choices, choices)


def _values(kinds: type[StrEnum]) -> tuple[str, ...]:
    return tuple(each.value for each in kinds)


def _list(words: str, holds: Callable[[object], bool], choices: tuple[str, ...] = ()) -> Rule:
    """Return a rule for a list that is not empty and whose every item holds."""
    return Rule(
        words,
        lambda value: isinstance(value, list) and bool(value) and all(holds(each) for each in value),
        choices,
    )


def _is_kind(value: object) -> bool:
    return isinstance(value, str) and (value in KINDS or re.fullmatch(r"\S.*\.py:[A-Za-z_]\w*", value) is not None)


def _is_shapes(value: object) -> bool:
    return isinstance(value, dict) and all(
        _is_text(name) and isinstance(shape, list) and all(_is_whole(axis, 0) for axis in shape)
        for name, shape in value.items()
    )


def _is_runtimes(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(each in _values(RuntimeName) for each in value)
        and len(set(value)) == len(value)
    )


_MILLISECONDS = _above(0, "a number of milliseconds, above 0", TIME)
_MEBIBYTES = _above(0, "a number of MiB, above 0", SIZE)
_PIXELS = _whole(1, "a whole number of pixels, 1 or more")
_FOLDER_OR_FILE = "the path of an npz file, or of a folder or table of samples"

RULES: Mapping[Path, Rule] = MappingProxyType(
    {
        ("model", "path"): _text("the path of an ONNX file, or package.module:function that returns a torch module"),
        ("model", "inputs"): Rule(
            "a table of shapes by input name, each a list of whole numbers (0 leaves an axis as it is), "
            "like x = [1, 3, 224, 224]",
            _is_shapes,
        ),
        ("task", "kind"): Rule(
            "one of " + ", ".join(f'"{each}"' for each in KINDS) + ', or "file.py:Class"',
            _is_kind,
            KINDS,
        ),
        ("task", "calibrate"): _text(_FOLDER_OR_FILE),
        ("task", "select"): _text(_FOLDER_OR_FILE),
        ("task", "test"): _text(_FOLDER_OR_FILE),
        ("task", "samples"): _whole(1, "a whole number of samples, 1 or more"),
        ("task", "detection", "layout"): _choice(("auto", "yolox", "boxes")),
        ("task", "detection", "strides"): _list(
            "a list of whole numbers of pixels, each 1 or more", lambda each: _is_whole(each, 1)
        ),
        ("task", "detection", "threshold"): _between(0, 1, "a number from 0 to 1", SHARE),
        ("task", "detection", "overlap"): _between(0, 1, "a number from 0 to 1", SHARE),
        ("task", "image", "resize"): _PIXELS,
        ("task", "image", "crop"): _PIXELS,
        ("task", "image", "scale"): _above(0, "a number above 0"),
        ("task", "image", "mean"): _list("a list of numbers", lambda each: _number(each) is not None),
        ("task", "image", "std"): _list(
            "a list of numbers above 0", lambda each: (number := _number(each)) is not None and number > 0
        ),
        ("task", "image", "layout"): _choice(("nchw", "nhwc")),
        ("task", "audio", "rate"): _whole(1, "a whole number of Hz, 1 or more"),
        ("task", "audio", "samples"): _whole(1, "a whole number of samples, 1 or more"),
        ("task", "text", "tokenizer"): _text("the path of a tokenizer.json"),
        ("task", "text", "max_tokens"): _whole(1, "a whole number of tokens, 1 or more"),
        ("target", "profile"): _text("the name of a target profile"),
        ("target", "threads"): _whole(1, f"a whole number from 1 to {MOST_THREADS}", MOST_THREADS),
        ("target", "runtimes"): Rule(
            "a list, without repeats, of " + ", ".join(f'"{each}"' for each in RuntimeName),
            _is_runtimes,
            _values(RuntimeName),
        ),
        ("budget", "latency_p50_ms"): _MILLISECONDS,
        ("budget", "latency_p99_ms"): _MILLISECONDS,
        ("budget", "peak_memory_mib"): _MEBIBYTES,
        ("budget", "size_mib"): _MEBIBYTES,
        ("budget", "energy_mj"): _above(0, "a number of millijoules per inference, above 0", ENERGY),
        ("budget", "accuracy_drop"): _between(
            0, math.inf, "a number of points of the task's metric, 0 or more (0.01 is one point in a hundred)", SHARE
        ),
        ("budget", "flip_rate"): _between(0, 1, "a share of the inputs, from 0 to 1", SHARE),
        ("search", "effort"): _choice(_values(Effort)),
        ("search", "seed"): _whole(0, f"a whole number from 0 to {MOST_SEEDS - 1}", MOST_SEEDS - 1),
        ("search", "workers"): _whole(1, f"a whole number of processes, from 1 to {MOST_THREADS}", MOST_THREADS),
    }
)


def converted(rule: Rule, value: object) -> float | None:
    """Return a value written with a unit in the key's own unit, or None where it cannot be told.

    >>> converted(RULES["budget", "latency_p99_ms"], "5 ms")
    5.0
    >>> converted(RULES["budget", "flip_rate"], "2%")
    0.02
    >>> converted(RULES["budget", "latency_p99_ms"], "soon") is None
    True
    """
    if not isinstance(value, str):
        return None
    found = re.fullmatch(r"\s*([0-9][0-9_]{0,15}(?:\.[0-9]{1,15})?)\s*([^\s0-9]{0,3})\s*", value)
    if found is None:
        return None
    number, unit = float(found[1]), found[2].lower()
    factor = 1.0 if not unit else rule.units.get(unit)
    if factor is None:
        return None
    result = float(f"{number * factor:.6g}")
    return result if rule.holds(result) else None
