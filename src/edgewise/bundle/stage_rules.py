"""What the manifest of a bundle of several stages must say: each stage is a bundle, and what they are given fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edgewise.bundle.names import BOM, CARD, MANIFEST
from edgewise.bundle.rules import check_files, check_golden, check_golden_outputs, check_label, check_manifest, require
from edgewise.contracts.manifest import Manifest, Port
from edgewise.contracts.pipeline import Description, ModelStage, PipelineManifest

ALWAYS = (BOM, CARD)
"""Documents that a bundle of several stages holds; each stage has its own."""


def check_pipeline(manifest: PipelineManifest, stages: Mapping[str, Manifest], sizes: Mapping[str, int]) -> None:
    """Raise BundleError unless a manifest agrees with itself, its files (path to size) and its stages' manifests.

    `stages` were decoded from files with the digests that the description says.
    """
    check_label(manifest)
    check_files(manifest, sizes, always=ALWAYS)
    for problem in manifest.pipeline.problems():
        require(False, problem)  # noqa: FBT003 - reads as a sentence
    for each in manifest.pipeline.stages:
        _check_stage(each, manifest, stages[each.name], sizes)
    inputs, outputs = ports_of(manifest.pipeline, stages)
    require(manifest.inputs == inputs, "other inputs than its stages take")
    require(manifest.outputs == outputs, "other outputs than its stages make")
    check_golden(manifest.golden, tuple(each.name for each in inputs), sizes)
    golden = manifest.golden_outputs
    require(len(golden.samples) == len(manifest.golden.samples), "golden inputs without their outputs")
    for sample in golden.samples:
        found = [each.tensor.name for each in sample]
        require(found == [each for each in manifest.pipeline.outputs if each in found], "golden outputs out of order")
        check_golden_outputs(sample, golden.path, sizes)


def ports_of(description: Description, stages: Mapping[str, Manifest]) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Return what items bring and what they are given back, by the stages. Raises BundleError where it does not fit."""
    made: dict[str, Port] = {}
    brought: dict[str, Port] = {}
    for each in description.stages:
        its = stages[each.name]
        taken = {port.name: port for port in its.inputs}
        for name, source in each.inputs.items():
            port = taken[name]
            if "." in source:
                require(source in made, f"an input from {source[:80]!r}, which no stage before gives")
                require(_fits(made[source], port), f"{source[:80]!r} as {each.name}'s input {name[:80]!r}")
            else:
                known = brought.setdefault(source, Port(name=source, dtype=port.dtype, shape=port.shape))
                require((known.dtype, known.shape) == (port.dtype, port.shape), f"two forms of {source[:80]!r}")
        if each.when is not None:
            gate = made.get(each.when.value)
            require(gate is not None and gate.dtype != "bool", f"a gate on {each.when.value[:80]!r}")
        for port in its.outputs:
            made[f"{each.name}.{port.name}"] = Port(name=f"{each.name}.{port.name}", dtype=port.dtype, shape=port.shape)
    for name in description.outputs:
        require(name in made, f"the output {name[:80]!r}, which no stage makes")
    order = description.item_values()
    return tuple(brought[name] for name in order), tuple(made[name] for name in description.outputs)


def stage_sizes(name: str, sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the files of a stage's folder as those of a bundle."""
    return {path.removeprefix(f"{name}/"): size for path, size in sizes.items() if path.startswith(f"{name}/")}


def _check_stage(stage: ModelStage, whole: PipelineManifest, its: Manifest, sizes: Mapping[str, int]) -> None:
    check_manifest(its, stage_sizes(stage.name, sizes))
    signed = {each.path: each.digest for each in whole.files}
    require(signed[f"{stage.name}/{MANIFEST}"] == stage.bundle, f"another manifest for {stage.name}")
    for each in its.files:
        require(signed[f"{stage.name}/{each.path}"] == each.digest, f"two digests for {stage.name}/{each.path}")
    require(
        stage.variant is None or stage.variant in [each.name for each in its.variants],
        f"{stage.name}'s variant {(stage.variant or '')[:80]!r}, which is not there",
    )
    inputs = {each.name: each for each in its.inputs}
    states = [source for source, _ in stage.state]
    require(len(set(states)) == len(states), f"a state of {stage.name} twice")
    require(sorted([*stage.inputs, *states]) == sorted(inputs), f"other inputs for {stage.name} than its model takes")
    for problem in _wrong_states(stage, its, inputs):
        require(False, problem)  # noqa: FBT003 - as above


def _wrong_states(stage: ModelStage, its: Manifest, inputs: Mapping[str, Port]) -> Iterator[str]:
    outputs = {each.name: each for each in its.outputs}
    for source, target in stage.state:
        made = outputs.get(target)
        if made is None or not _fits(made, inputs[source]):
            yield f"{stage.name}'s state {source[:80]!r} from {target[:80]!r}"


def _fits(made: Port, taken: Port) -> bool:
    """Return whether an output can be an input; sizes that are open are seen as it runs."""
    return (
        made.dtype == taken.dtype
        and len(made.shape) == len(taken.shape)
        and all(a == b or None in {a, b} for a, b in zip(made.shape, taken.shape, strict=True))
    )
