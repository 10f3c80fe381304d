"""Golden inputs of a pipeline: those of its stages' bundles, and what comes out at the end.

A device runs each stage on its own golden inputs, and the whole on these: a stage that is right by itself may still
be given the wrong values.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from edgewise.bundle.stages import Values
from edgewise.bundle.tensors import Array, place_arrays, read_tensor
from edgewise.bundle.write import Source
from edgewise.contracts.manifest import Golden, GoldenOutput, GoldenOutputs, Manifest
from edgewise.contracts.pipeline import Description
from edgewise.errors import DataError
from edgewise.forge.seal.chain import Chain
from edgewise.forge.seal.golden import INPUTS, tolerance_of

OUTPUTS = "golden/outputs.bin"


class JoinedGolden(msgspec.Struct, frozen=True, kw_only=True):
    """What goes into the manifest, the files, and the stages that no golden input comes to."""

    inputs: Golden
    outputs: GoldenOutputs
    files: dict[str, Source]
    unreached: tuple[str, ...]


def golden_of(description: Description, manifests: Mapping[str, Manifest], folder: Path) -> JoinedGolden:
    """Run the pipeline on the golden inputs of its stages, which lie below `folder` by their names.

    One that is so near to a gate that another way to compute it goes another way is left out. Raises DataError where
    none is left, ExecutionError.
    """
    items = _items(description, manifests, folder)
    chain = Chain(description, manifests, folder)
    plain = Chain(description, manifests, folder, optimise=False)
    kept: list[tuple[Values, dict[str, Array], dict[str, Array]]] = []
    reached: set[str] = set()
    for item in items:
        found, other = chain(item), plain(item)
        if chain.reached == plain.reached:
            kept.append((item, found, other))
            reached |= chain.reached
    if not any(found for _, found, _ in kept):
        raise DataError(
            "no golden input of the stages comes to an output of the pipeline",
            required="golden inputs that open its gates",
            next_step="correct `when`, or add an output of a stage before the gate",
        )
    names = description.item_values()
    places, inputs_file = place_arrays((name, item[name]) for item, _, _ in kept for name in names)
    tolerances = {
        name: tolerance_of(name, [(a[name], b[name]) for _, a, b in kept if name in a]) for name in description.outputs
    }
    flat, outputs_file = place_arrays(pair for _, found, _ in kept for pair in found.items())
    rest = iter(flat)
    samples = tuple(
        tuple(GoldenOutput(tensor=next(rest), tolerance=tolerances[name]) for name in found) for _, found, _ in kept
    )
    size = len(names)
    return JoinedGolden(
        inputs=Golden(
            path=INPUTS,
            split=manifests[description.stages[0].name].golden.split,
            samples=tuple(places[start : start + size] for start in range(0, len(places), size)),
        ),
        outputs=GoldenOutputs(path=OUTPUTS, samples=samples),
        files={INPUTS: inputs_file, OUTPUTS: outputs_file},
        unreached=tuple(each.name for each in description.stages if each.name not in reached),
    )


def _items(description: Description, manifests: Mapping[str, Manifest], folder: Path) -> list[dict[str, Array]]:
    """Return items made of the golden inputs of the stages that take their values, as many as all of them have."""
    columns: dict[str, list[Array]] = {}
    for stage in description.stages:
        golden = manifests[stage.name].golden
        data = (folder / stage.name / golden.path).read_bytes()
        for name, source in stage.inputs.items():
            if "." not in source and source not in columns:
                columns[source] = [
                    read_tensor(data, place) for sample in golden.samples for place in sample if place.name == name
                ]
    count = min((len(each) for each in columns.values()), default=0)
    return [{name: column[at] for name, column in columns.items()} for at in range(count)]
