"""What is asked of a cloud server: a copy of the inputs, taken before the application may write over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from edgewise.device.ready import Ready
from edgewise.runtimes.base import Array

Original = str | bytes
"""What the application made the inputs of, where it gives it: a text, or a PNG or JPEG file."""


class Form(NamedTuple):
    """What an output must look like."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Local(NamedTuple):
    """What the local variant was given and answered; nothing is copied yet."""

    inputs: Mapping[str, Array]
    original: Original | None
    ready: Ready
    outputs: Mapping[str, Array]


class Question(NamedTuple):
    """One input, who was unsure of it, and the form of an answer."""

    inputs: Mapping[str, Array]
    original: Original | None
    ready: Ready
    forms: Mapping[str, Form]


def question_of(local: Local) -> Question:
    """Copy what is to be sent; the local outputs say the form."""
    inputs = {name: np.array(array) for name, array in local.inputs.items()}
    forms = {name: Form(each.shape, each.dtype) for name, each in local.outputs.items()}
    return Question(inputs, local.original, local.ready, forms)
