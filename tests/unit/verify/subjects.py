"""Subjects by hand: the demo model's, without what only other suites read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgewise.contracts.budget import Budget
from edgewise.contracts.target import RuntimeName
from edgewise.contracts.task import TaskConfig
from edgewise.contracts.verification import Depth, Finding, Grade, Section
from edgewise.demo import demo_folder
from edgewise.forge.data.open import CALIBRATE, TEST, open_split
from edgewise.forge.data.split import Subset
from edgewise.forge.tasks.classification import Classification
from edgewise.forge.verify.subject import Pairs, Subject
from edgewise.runtimes import runtime

_NO_PAIRS = Pairs(
    reference_predictions=(),
    variant_predictions=(),
    targets=(),
    reference_outputs=(),
    variant_outputs=(),
    reference_margins=(),
    divergences=(),
)


def subject(variant: Path, normalised: Path, **changes: Any) -> Subject:
    execute = runtime(RuntimeName.ONNXRUNTIME)
    reference = execute.load(demo_folder() / "model.onnx")
    config = TaskConfig(calibrate="calibrate.npz", test="test.npz")
    splits = {
        split: open_split(split, config=config, inputs=reference.inputs, folder=demo_folder())
        for split in (CALIBRATE, TEST)
    }
    test = splits[TEST]
    assert test is not None
    fields: dict[str, Any] = {
        "task": Classification(classes=10),
        "test": Subset(test, range(0, len(test), 60)),
        "calibrate": splits[CALIBRATE],
        "reference_path": demo_folder() / "model.onnx",
        "normalised_path": normalised,
        "variant_path": variant,
        "reference": reference,
        "variant": execute.load(variant),
        "runtime": execute,
        "threads": 1,
        "pairs": _NO_PAIRS,
        "recipe": None,
        "groups": None,
        "budget": Budget(),
        "depth": Depth.QUICK,
        "seed": 0,
    }
    return Subject(**(fields | changes))


def troubles(section: Section) -> list[Finding]:
    return [each for each in section.findings if each.grade in (Grade.FAIL, Grade.FLAG, Grade.UNKNOWN)]


def names(section: Section) -> set[tuple[str, str]]:
    """Return (name, subject) of all that is failed or flagged."""
    return {(each.name, each.subject) for each in section.findings if each.grade in (Grade.FAIL, Grade.FLAG)}
