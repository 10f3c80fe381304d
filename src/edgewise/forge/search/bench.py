"""Build and judge recipes: the workbench every step of the search shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import msgspec

from edgewise.contracts.recipe import Recipe
from edgewise.errors import EdgewiseError
from edgewise.forge.cache import Cache, digest
from edgewise.forge.calibrate import Calibration
from edgewise.forge.graph import Graph
from edgewise.forge.judge import Judgement
from edgewise.forge.judges import Failure, Judges
from edgewise.forge.kept import Kept, kept_of
from edgewise.forge.lower.lowering import lower
from edgewise.forge.parameters import FloatArray, rows_of
from edgewise.forge.regions import Region
from edgewise.forge.weights import Corrections, Known, parameters_for

Report = Callable[[int], None]
# Models that are built, sent out and judged at a time.
_AT_ONCE = 8


def _shifted(report: Report, start: int, done: int) -> None:
    report(start + done)


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One recipe that was built and judged on the select split, or the reason why not."""

    recipe: Recipe
    judgement: Judgement | None
    size_bytes: int | None = None
    """Of the model file; None for what could not be built."""
    failure: str = ""

    @property
    def divergence(self) -> float:
        """The mean divergence; infinite for a failure."""
        return self.judgement.divergence if self.judgement else float("inf")


class Bench:
    """One graph with its calibration and its judges."""

    def __init__(
        self,
        *,
        graph: Graph,
        regions: tuple[Region, ...],
        calibration: Calibration,
        judges: Judges,
        cache: Cache,
        context: str,
        equalised: bool = False,
    ) -> None:
        """`context` is the digest of all that a judgement depends on besides the model's bytes."""
        self.equalised = equalised
        self.graph = graph
        self.regions = regions
        self.calibration = calibration
        self.corrections = Corrections()
        self._known = Known()
        self._judges = judges
        self._cache = cache
        self._context = context

    def weight_rows(self, region: Region) -> FloatArray:
        """Return a region's own weight as rows [out, in]."""
        if region.weight is None:
            raise ValueError(region.name)
        return rows_of(self.graph, region, self.graph.constants[region.weight])

    def build(self, recipe: Recipe) -> bytes:
        """Lower a recipe with the corrections known so far. Raises EdgewiseError where it cannot be lowered."""
        parameters = parameters_for(self.graph, self.regions, recipe, self.calibration, self.corrections, self._known)
        return bytes(lower(self.graph, self.regions, recipe, parameters).SerializeToString(deterministic=True))

    def kept(self, recipe: Recipe) -> Kept:
        """Return what calibration data determined of a recipe's build."""
        self.build(recipe)  # finds every range that it needs, where that was not done before
        return kept_of(tuple(self.calibration.histograms), self._known.ranges, self.corrections, recipe)

    def try_all(
        self, recipes: Sequence[Recipe], *, positions: Sequence[int] | None = None, report: Report = lambda _: None
    ) -> list[Trial]:
        """Build and judge recipes, on the whole select split or at some of its positions.

        A recipe that cannot be built or run becomes a Trial with its reason; the others go on. While some models
        are judged the next are built, on a thread; only a few are held at a time.
        """
        some = [recipes[start : start + _AT_ONCE] for start in range(0, len(recipes), _AT_ONCE)]
        trials: list[Trial] = []
        with ThreadPoolExecutor(1) as ahead:
            waiting = [ahead.submit(self._built, each) for each in some[:1]]
            for at, each in enumerate(some):
                built = waiting.pop().result()
                waiting = [ahead.submit(self._built, more) for more in some[at + 1 : at + 2]]
                trials += self._judged(each, built, positions, partial(_shifted, report, len(trials)))
        return trials

    def _built(self, recipes: Sequence[Recipe]) -> tuple[dict[int, bytes], dict[int, str]]:
        """Return the models, by position, and the reasons of those that could not be built."""
        models: dict[int, bytes] = {}
        failures: dict[int, str] = {}
        for at, recipe in enumerate(recipes):
            try:
                models[at] = self.build(recipe)
            except EdgewiseError as error:
                failures[at] = str(error).splitlines()[0]
        return models, failures

    def _judged(
        self,
        recipes: Sequence[Recipe],
        built: tuple[dict[int, bytes], dict[int, str]],
        positions: Sequence[int] | None,
        report: Report,
    ) -> list[Trial]:
        models, failures = built
        where = "all" if positions is None else ",".join(map(str, positions))
        keys = {at: digest(self._context, model, where) for at, model in models.items()}
        known = {at: kept for at, key in keys.items() if (kept := self._cache.get(key, Judgement)) is not None}
        # Recipes may differ and make the same model: it is judged once.
        first = {keys[at]: at for at in reversed(models) if at not in known}
        open_ = sorted(first.values())
        results = self._judges.judge(
            [models[at] for at in open_],
            positions=positions,
            report=lambda done: report(len(known) + len(failures) + done),
        )
        found = {keys[at]: result for at, result in zip(open_, results, strict=True)}
        for at in models:
            result = found.get(keys[at])
            if isinstance(result, Failure):
                failures[at] = result.reason
            elif result is not None:
                known[at] = result
        for key, result in found.items():
            if not isinstance(result, Failure):
                self._cache.put(key, result)
        report(len(recipes))
        return [
            Trial(
                recipe=recipe,
                judgement=known.get(at),
                size_bytes=len(models[at]) if at in models else None,
                failure=failures.get(at, ""),
            )
            for at, recipe in enumerate(recipes)
        ]
