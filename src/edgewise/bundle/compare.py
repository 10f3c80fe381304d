"""What differs between two manifests."""

from __future__ import annotations

from typing import Any

import msgspec

from edgewise.contracts.base import Value
from edgewise.contracts.manifest import SealedFile
from edgewise.contracts.pipeline import Sealed

_LISTED = frozenset({"files", "variants", "golden", "golden_outputs", "pipeline"})
_OF_VARIANTS = ("precision", "runtime", "device_class", "verdict", "recipe_digest", "source_digest", "threads")


class Changed(Value, kw_only=True):
    """One field by its dotted name, as JSON text; empty where a side does not have it."""

    name: str
    before: str
    after: str


class Difference(Value, kw_only=True):
    """What changed from one bundle to another; all empty for bundles of the same content."""

    fields: tuple[Changed, ...]
    added: tuple[SealedFile, ...]
    removed: tuple[SealedFile, ...]
    changed: tuple[SealedFile, ...]
    """The files of the second bundle that have another content in the first."""


def compare(old: Sealed, new: Sealed) -> Difference:
    """Return what differs."""
    before, after = _flat(old), _flat(new)
    files = {each.path: each for each in old.files}
    mine = {each.path: each for each in new.files}
    return Difference(
        fields=tuple(
            Changed(name=name, before=before.get(name, ""), after=after.get(name, ""))
            for name in sorted(before.keys() | after.keys())
            if before.get(name) != after.get(name)
        ),
        added=tuple(mine[path] for path in sorted(mine.keys() - files.keys())),
        removed=tuple(files[path] for path in sorted(files.keys() - mine.keys())),
        changed=tuple(mine[path] for path in sorted(mine.keys() & files.keys()) if mine[path] != files[path]),
    )


def _flat(manifest: Sealed) -> dict[str, str]:
    """Return the fields worth a person's look as JSON text, those of variants and stages by their names."""
    whole: dict[str, Any] = msgspec.to_builtins(manifest)
    found = {name: value for name, value in whole.items() if name not in _LISTED}
    for variant in whole.get("variants", ()):
        picked = {name: variant[name] for name in _OF_VARIANTS} | {
            f"figures.{name}": value for name, value in variant["figures"].items()
        }
        found |= {f"variants.{variant['name']}.{name}": value for name, value in picked.items()}
    pipeline = whole.get("pipeline", {})
    found |= {f"pipeline.{name}": value for name, value in pipeline.items() if name != "stages"}
    for stage in pipeline.get("stages", ()):
        found |= {f"stages.{stage['name']}.{name}": value for name, value in stage.items() if name != "name"}
    return {name: msgspec.json.encode(value, order="deterministic").decode() for name, value in found.items()}
