"""Several models that are sealed, signed and installed as one: which bundle each stage is, and how they are joined.

Values are named: an item brings its own (`sound`), a stage adds its model's outputs (`encoder.y`). A stage is given
values of the item or of stages before it. Digests are SHA-256 in hex.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from enum import StrEnum
from math import inf, isfinite

from edgewise.contracts.base import Value
from edgewise.contracts.budget import Budget
from edgewise.contracts.manifest import BUNDLE_VERSION, Golden, GoldenOutputs, Manifest, Port, SealedFile

MOST_STAGES = 16
MOST_WAITING = 1 << 16
MOST_DEADLINE_MS = 86_400_000.0
STAGE_NAME = re.compile(r"[a-z](?:[a-z0-9_-]{0,30}[a-z0-9_])?")
RESERVED = frozenset({"golden"})
"""Folders that a bundle needs for itself."""
_ITEM_VALUE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_MAILBOX = re.compile(r"(latest|block|reject)\(([1-9][0-9]{0,4})\)")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Gap(StrEnum):
    """What a model with a state does where items before its own did not reach it, or failed in it."""

    CARRY = "carry"
    """It goes on: the frames of a camera or a microphone, where one that is missing changes little."""
    RESET = "reset"
    """It begins a new stream: the tokens of a text, where the ones after a missing one mean nothing."""


class Place(StrEnum):
    """Where a stage's model runs."""

    HERE = "here"
    WORKER = "worker"
    """In a process of its own, which is ended where it hangs."""


class Gate(Value, kw_only=True):
    """A stage runs only where the largest element of `value`, of a stage before it, is `at_least` so much.

    An item whose gate is closed goes on without the stage, and without those after it that need what it makes.
    """

    value: str
    at_least: float


class ModelStage(Value, kw_only=True):
    """One stage."""

    name: str
    """Also the folder in the bundle with the files of the stage's own bundle."""
    bundle: str
    """Of its bundle's manifest, `NAME/manifest.json`, as in outcomes."""
    variant: str | None = None
    """The bundle's chosen one where it is None."""
    inputs: dict[str, str]
    """Which value each input of the model is."""
    state: tuple[tuple[str, str], ...] = ()
    """Inputs that are taken from an output of the same stage for the item before; zeros at first."""
    when: Gate | None = None
    mailbox: str
    """`latest(1)`, `block(4)`, `reject(2)`."""
    gap: Gap = Gap.CARRY
    place: Place = Place.HERE

    def problems(self, before: AbstractSet[str]) -> Iterator[str]:
        """Yield what contradicts itself, or the stages before, which are given by name."""
        if STAGE_NAME.fullmatch(self.name) is None or self.name in before | RESERVED:
            yield f"a stage {self.name[:80]!r}"
        if _DIGEST.fullmatch(self.bundle) is None:
            yield f"{self.bundle[:80]!r} where a SHA-256 is due"
        found = _MAILBOX.fullmatch(self.mailbox)
        if found is None or int(found[2]) > MOST_WAITING:
            yield f"the mailbox {self.mailbox[:80]!r}; required: latest(1), block(n) or reject(n)"
        for source in self.inputs.values():
            stage, point, _ = source.partition(".")
            if stage not in before if point else _ITEM_VALUE.fullmatch(source) is None:
                yield f"an input from {source[:80]!r}, which no stage before gives"
        if self.when is not None:
            stage, point, _ = self.when.value.partition(".")
            if not point or stage not in before or not isfinite(self.when.at_least):
                yield f"a gate on {self.when.value[:80]!r}, which no stage before gives"


class Description(Value, kw_only=True):
    """Stages, in order."""

    stages: tuple[ModelStage, ...]
    outputs: tuple[str, ...]
    """The values that an application is given."""
    deadline_ms: float
    """Of an item that comes without one."""

    def problems(self) -> Iterator[str]:
        """Yield what contradicts itself; nothing where all fits."""
        if not 1 <= len(self.stages) <= MOST_STAGES:
            yield f"{len(self.stages)} stages; required: 1 to {MOST_STAGES}"
        if not 0 < self.deadline_ms <= MOST_DEADLINE_MS:
            yield f"a deadline of {self.deadline_ms} ms"
        before: set[str] = set()
        for each in self.stages:
            yield from each.problems(before)
            before.add(each.name)
        if not self.outputs or len(set(self.outputs)) < len(self.outputs):
            yield "no outputs, or one twice"

    def item_values(self) -> tuple[str, ...]:
        """Return the names of what an item brings: by stages, then by the names of their inputs.

        Not in the order of `inputs`: a manifest does not keep it.
        """
        named = (source for each in self.stages for _, source in sorted(each.inputs.items()) if "." not in source)
        return tuple(dict.fromkeys(named))


class PipelineManifest(Value, kw_only=True):
    """The manifest of a bundle of several stages: in the place of a model's it holds theirs, as their own files."""

    format_version: int = BUNDLE_VERSION
    product: str
    version: str
    security_floor: str
    sealed_with: str
    pipeline: Description
    inputs: tuple[Port, ...]
    """What an item brings."""
    outputs: tuple[Port, ...]
    """Those of `pipeline.outputs`, under these names."""
    budget: Budget
    """Limits of the whole: of an item, from its arrival to its end."""
    golden: Golden
    golden_outputs: GoldenOutputs
    """What the pipeline gave for them at sealing, all states zeros before each. One that a gate kept out is missing."""
    model_signature_key: str | None = None
    files: tuple[SealedFile, ...]


Sealed = Manifest | PipelineManifest
"""What the manifest of a bundle can be."""


def is_open(gate: Gate, largest: float) -> bool:
    """Return whether a gate lets an item through; what is not a number it does not.

    >>> is_open(Gate(value="vad.speech", at_least=0.5), 0.7)
    True
    """
    return -inf < largest and largest >= gate.at_least


def mailbox_of(text: str) -> tuple[str, int]:
    """Return what gives way in a full mailbox, and how many it holds. Raises ValueError.

    >>> mailbox_of("block(4)")
    ('block', 4)
    """
    found = _MAILBOX.fullmatch(text)
    if found is None:
        raise ValueError(f"the mailbox {text[:80]!r}")
    return found[1], int(found[2])
