"""Values on their way through the stages of a pipeline, without threads, clocks or mailboxes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgewise.bundle.tensors import Array
from edgewise.contracts.manifest import Manifest, Variant
from edgewise.contracts.pipeline import Description, ModelStage, is_open
from edgewise.errors import ExecutionError

Values = Mapping[str, Array]


def feeds_of(stage: ModelStage, values: Values) -> dict[str, Array] | None:
    """Return what a stage's model is given; None where its gate is closed, or a stage that it needs was left out.

    Raises ExecutionError where the item lacks a value.
    """
    missing = [each for each in stage.inputs.values() if each not in values]
    lacking = sorted(each for each in missing if "." not in each)
    if lacking:
        raise ExecutionError(f"{stage.name} misses {', '.join(lacking)}", required="what its `inputs` name")
    if stage.when is not None:
        found = values.get(stage.when.value)
        if found is None or not found.size or not is_open(stage.when, float(np.max(found))):
            return None
    return None if missing else {name: values[source] for name, source in stage.inputs.items()}


def added(stage: ModelStage, values: Values, outputs: Values) -> dict[str, Array]:
    """Return the values with those of a stage."""
    return {**values, **{f"{stage.name}.{name}": array for name, array in outputs.items()}}


def walked(description: Description, item: Values, run: Callable[[ModelStage, Values], Values]) -> dict[str, Array]:
    """Return the outputs for one item, stage after stage; those that a gate kept out are missing."""
    values = dict(item)
    for stage in description.stages:
        feeds = feeds_of(stage, values)
        if feeds is not None:
            values = added(stage, values, run(stage, feeds))
    return {name: values[name] for name in description.outputs if name in values}


def variant_of(stage: ModelStage, manifest: Manifest) -> Variant:
    """Return the variant that a stage begins with; one that its description names was checked to be there."""
    name = stage.variant or manifest.chosen
    return next(each for each in manifest.variants if each.name == name)


def settled_shapes(
    manifest: Manifest, variant: Variant, state: Sequence[tuple[str, str]]
) -> dict[str, tuple[int | None, ...]]:
    """Return the shape of every input: that of the golden inputs, but for the axes on which a state grows.

    A state grows where its golden output is longer than its golden input was, as a cache of keys and values is.
    """
    shapes: dict[str, tuple[int | None, ...]] = {each.name: each.shape for each in manifest.golden.samples[0]}
    made = {each.tensor.name: each.tensor.shape for each in variant.golden.samples[0]}
    for source, target in state:
        before, after = shapes.get(source), made.get(target)
        if before is not None and after is not None and len(before) == len(after):
            shapes[source] = tuple(a if a == b else None for a, b in zip(before, after, strict=True))
    return shapes


def begun(manifest: Manifest, variant: Variant, state: Sequence[tuple[str, str]]) -> dict[str, Array]:
    """Return the states before the first item: zeros, empty on the axes on which they grow."""
    shapes = settled_shapes(manifest, variant, state)
    types = {each.name: each.dtype.value for each in manifest.golden.samples[0]}
    return {name: np.zeros([size or 0 for size in shapes[name]], types[name]) for name, _ in state}
