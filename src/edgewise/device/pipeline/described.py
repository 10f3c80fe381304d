"""Several models as one pipeline: a description names the bundle of each stage by its digest, and what it is given.

Each bundle stays as it is, sealed and with its own variants. The description says which of them belong together.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

import msgspec

from edgewise.contracts.base import Value
from edgewise.device.pipeline.models import Arrays, Gap
from edgewise.device.pipeline.pipeline import Stage, Ticket
from edgewise.device.pipeline.policy import Policy, block, latest, reject
from edgewise.errors import BundleError, ConfigError, ExecutionError

VERSION = 1
MOST_STAGES = 32
MOST_BYTES = 1 << 16
_POLICY = re.compile(r"(latest|block|reject)\(([0-9]{1,5})\)")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Place(StrEnum):
    """Where a stage's model runs."""

    HERE = "here"
    WORKER = "worker"


class ModelStage(Value, kw_only=True):
    """One stage. `inputs` says which value each input of the model is: the item's `x`, or an earlier `stage.y`."""

    name: str
    bundle: str
    """SHA-256 (hex) of the bundle's manifest, as in outcomes."""
    variant: str | None = None
    """The bundle's chosen one where it is None."""
    inputs: dict[str, str]
    mailbox: str
    """`latest(1)`, `block(4)`, `reject(2)`."""
    gap: Gap = Gap.CARRY
    place: Place = Place.HERE
    state: tuple[tuple[str, str], ...] = ()


class Description(Value, kw_only=True):
    """A pipeline of bundles, in order."""

    format_version: int
    stages: tuple[ModelStage, ...]

    def check(self) -> None:
        """Raise ConfigError where it contradicts itself."""
        _require(self.format_version == VERSION, f"format version {self.format_version}")
        _require(1 <= len(self.stages) <= MOST_STAGES, f"{len(self.stages)} stages")
        before: set[str] = set()
        for each in self.stages:
            _require(_NAME.fullmatch(each.name) is not None and each.name not in before, f"a stage {each.name[:80]!r}")
            _require(_DIGEST.fullmatch(each.bundle) is not None, f"{each.bundle[:80]!r} where a SHA-256 is due")
            for source in each.inputs.values():
                stage, point, _ = source.rpartition(".")
                _require(not point or stage in before, f"an input from {source[:80]!r}, which no stage before gives")
            policy(each.mailbox)
            before.add(each.name)


def decode(data: bytes) -> Description:
    """Return a description from JSON. Raises ConfigError."""
    if len(data) > MOST_BYTES:
        raise ConfigError(f"the pipeline's description has {len(data)} bytes", required=f"at most {MOST_BYTES}")
    try:
        found = msgspec.json.decode(data, type=Description)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"the pipeline's description cannot be read: {error}") from error
    found.check()
    return found


def check_bundle(stage: ModelStage, folder: Path) -> None:
    """Raise BundleError unless a folder holds the bundle that a stage names; its files were verified before."""
    try:
        found = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    except OSError as error:
        raise BundleError(f"{folder}: {error.strerror}", required="the folder of an extracted bundle") from error
    if found != stage.bundle:
        raise BundleError(
            f"stage {stage.name!r}: {folder} holds the bundle {found}",
            required=stage.bundle,
            next_step="install the bundle that the pipeline was described with",
        )


def policy(text: str) -> Policy:
    """Return a mailbox's policy. Raises ConfigError.

    >>> str(policy("block(4)"))
    'block(4)'
    """
    found = _POLICY.fullmatch(text)
    if found is None:
        raise ConfigError(f"the mailbox {text[:80]!r}", required="latest(1), block(n) or reject(n)")
    return {"latest": latest, "block": block, "reject": reject}[found[1]](int(found[2]))


def connected(stage: ModelStage, opened: Stage) -> Stage:
    """Return a stage that takes its inputs out of the item's values, and adds its outputs to them."""

    def run(values: Arrays, ticket: Ticket) -> Arrays:
        missing = sorted(set(stage.inputs.values()) - values.keys())
        if missing:
            raise ExecutionError(f"{stage.name} misses {', '.join(missing)}", required="what its `inputs` name")
        outputs = opened.run({name: values[source] for name, source in stage.inputs.items()}, ticket)
        return {**values, **{f"{stage.name}.{name}": array for name, array in outputs.items()}}

    return opened._replace(run=run)


def checked(description: Description, folders: Mapping[str, Path]) -> list[tuple[ModelStage, Path]]:
    """Return the stages with their folders, which are given by stage. Raises ConfigError and BundleError."""
    names = {each.name for each in description.stages}
    _require(names == folders.keys(), f"the folders {', '.join(sorted(folders))} for {', '.join(sorted(names))}")
    for each in description.stages:
        check_bundle(each, folders[each.name])
    return [(each, folders[each.name]) for each in description.stages]


def _require(holds: bool, found: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise ConfigError(f"the pipeline's description has {found}", required="a description of format version 1")
