"""Every stage's model of a pipeline, run one after the other: no threads, no mailboxes, no deadlines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from edgewise.bundle.stages import Values, begun, variant_of, walked
from edgewise.bundle.tensors import Array
from edgewise.contracts.manifest import Manifest, Variant
from edgewise.contracts.pipeline import Description, ModelStage
from edgewise.forge.seal.golden import load_as_written
from edgewise.runtimes import runtime
from edgewise.runtimes.base import Session


class Chain:
    """The models of the stages' folders below one folder, in the variants that `pick` names."""

    def __init__(
        self,
        description: Description,
        manifests: Mapping[str, Manifest],
        folder: Path,
        *,
        optimise: bool = True,
        pick: Callable[[ModelStage, Manifest], Variant] = variant_of,
    ) -> None:
        """Load them. Raises ExecutionError."""
        self._description = description
        self._sessions: dict[str, Session] = {}
        self._begun: dict[str, dict[str, Array]] = {}
        for stage in description.stages:
            manifest = manifests[stage.name]
            variant = pick(stage, manifest)
            model = folder / stage.name / variant.model
            self._sessions[stage.name] = (
                runtime(variant.runtime).load(model, threads=variant.threads)
                if optimise
                else load_as_written(model, threads=variant.threads)
            )
            self._begun[stage.name] = begun(manifest, variant, stage.state)
        self._states = dict(self._begun)
        self.reached: set[str] = set()
        """Stages that the last item came to."""

    def __call__(self, item: Values, *, begins: bool = True) -> dict[str, Array]:
        """Return the outputs for one item; all states are zeros before one that begins. Raises ExecutionError."""
        if begins:
            self._states = dict(self._begun)
        self.reached = set()
        return walked(self._description, item, self._run)

    def _run(self, stage: ModelStage, feeds: Values) -> Values:
        self.reached.add(stage.name)
        session, states = self._sessions[stage.name], self._states[stage.name]
        outputs = dict(
            zip(
                (each.name for each in session.outputs),
                session.run({**feeds, **states}),
                strict=True,
            )
        )
        # A state that is paired with itself keeps its value.
        self._states[stage.name] = states | {
            source: outputs[target] for source, target in stage.state if target in outputs
        }
        return outputs


def fallback_of(_: ModelStage, manifest: Manifest) -> Variant:
    """Return the variant of a stage's bundle that is its last resort."""
    return next(each for each in manifest.variants if each.name == manifest.fallback)
