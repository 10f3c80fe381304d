"""Subjects of a classifier whose answers are written down, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.budget import Budget
from edgewise.contracts.target import RuntimeName
from edgewise.contracts.verification import Depth, Finding, Section
from edgewise.forge.progress import Silent
from edgewise.forge.tasks.base import Array, Outputs, Sample, Task
from edgewise.forge.tasks.classification import Classification
from edgewise.forge.verify.agreement import agreement
from edgewise.forge.verify.pairs import pair
from edgewise.forge.verify.subject import Subject
from edgewise.runtimes import runtime
from edgewise.runtimes.base import TensorSpec

Floats = NDArray[np.float64]


class Scripted:
    """A model whose output for sample i is row i of what it was given."""

    def __init__(self, rows: Array) -> None:
        self._rows = rows
        self.inputs = (TensorSpec("i", "int64", (1,)),)
        self.outputs: tuple[TensorSpec, ...] = ()

    def run(self, feeds: Mapping[str, Array]) -> Outputs:
        return (np.asarray(self._rows[int(feeds["i"][0])])[None],)


class Numbered:
    """A split whose samples are their own numbers."""

    name = "by hand"
    warnings = ()

    def __init__(self, targets: Sequence[Any]) -> None:
        self._targets = targets

    @property
    def targets(self) -> Sequence[Any] | None:
        return None if all(each is None for each in self._targets) else self._targets

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, index: int, /) -> Sample:
        return Sample({"i": np.array([index])}, self._targets[index])

    def digest(self) -> str:
        return "00" * 32

    def fingerprint(self, index: int) -> bytes:
        return bytes([index % 256])


def subject(
    reference: Array,
    variant: Array,
    targets: Sequence[Any],
    *,
    task: Task | None = None,
    groups: Sequence[str] | None = None,
    budget: Budget | None = None,
) -> Subject:
    kind = task or Classification(classes=len(reference[0]))
    test, before, after = Numbered(targets), Scripted(reference), Scripted(variant)
    return Subject(
        task=kind,
        test=test,
        calibrate=None,
        reference_path=Path("reference.onnx"),
        normalised_path=Path("normalised.onnx"),
        variant_path=Path("variant.onnx"),
        reference=before,
        variant=after,
        runtime=runtime(RuntimeName.ONNXRUNTIME),
        threads=1,
        pairs=pair(kind, before, after, test, report=lambda _: None),
        recipe=None,
        groups=None if groups is None else tuple(groups),
        budget=budget or Budget(),
        depth=Depth.QUICK,
        seed=0,
        seconds=2.0,
    )


def examined(given: Subject) -> Section:
    return agreement(given, Silent())


def findings(section: Section, name: str) -> dict[str, Finding]:
    return {each.subject: each for each in section.findings if each.name == name}


def believer(seed: int, *, samples: int = 1200, classes: int = 6) -> tuple[Floats, NDArray[np.int64]]:
    """Logits of a model that is right about 85 % of the time, and labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(samples) % classes
    logits = random.normal(size=(samples, classes))
    logits[np.arange(samples), labels] += 2.7
    return logits, labels


def rounded(logits: Floats, seed: int = 1, noise: float = 0.03) -> Floats:
    """Logits with the small even noise that good rounding makes."""
    return logits + np.random.default_rng((seed, 99)).normal(size=logits.shape) * noise
