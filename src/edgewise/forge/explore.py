"""Run the search strategy on a prepared model: from calibration to judged candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from edgewise.contracts.recipe import Format
from edgewise.forge.cache import Cache, digest
from edgewise.forge.calibrate import Calibration, calibrate
from edgewise.forge.costs import BorderFit, Profile, fit_borders, profiled
from edgewise.forge.judge import Reference
from edgewise.forge.judges import Judges
from edgewise.forge.moments import inputs_of, input_columns, moments
from edgewise.forge.placement import Costs, Placement, predicted_us
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from edgewise.forge.prepare import Prepared
from edgewise.forge.progress import Progress
from edgewise.forge.reconstruct import bias_shifts, reconstructed
from edgewise.forge.regions import Kind, Region
from edgewise.forge.search.bench import Bench, Trial
from edgewise.forge.search.options import STATIC, Style, offered, placed, uniform
from edgewise.forge.search.plan import SearchPlan
from edgewise.forge.search.strategy import (
    Offers,
    costs_of,
    judge_placements,
    refine_ranges,
    screen,
    sensitivities,
    styles_of,
    sweep,
    useful,
)
from edgewise.forge.sensitivity import Sensitivity
from edgewise.forge.smooth import smoothing
from edgewise.forge.tasks.base import Feeds
from edgewise.forge.weights import Corrections, parameters_for

# Smoothing is searched for on so many input rows of each product.
_SMOOTH_ROWS = 512
_SMOOTH_SAMPLES = 64


class Explored(msgspec.Struct, frozen=True, kw_only=True):
    """What the search knows: judged candidates with the time it predicts for each, and why."""

    trials: tuple[Trial, ...]
    predicted_us: tuple[float | None, ...]
    fp32: Profile
    profiles: Mapping[Format, Profile]
    sensitivity: Mapping[Format, tuple[Sensitivity, ...]]
    calibration: Calibration
    bench: Bench


class Explorer:
    """The state of one search; each step is a method, `explore` is their order."""

    def __init__(
        self,
        prepared: Prepared,
        plan: SearchPlan,
        *,
        judges: Judges,
        reference: Reference,
        cache: Cache,
        costs: Cache,
        context: str,
        seed: int,
        progress: Progress,
    ) -> None:
        """`cache` holds this run's judgements, `costs` what was measured on this machine."""
        self._prepared = prepared
        self._plan = plan
        self._judges = judges
        self._reference = reference
        self._cache = cache
        self._costs = costs
        self._context = context
        self._seed = seed
        self._progress = progress

    def explore(self) -> Explored:
        """Search. Failures of single candidates are among the trials."""
        prepared, plan = self._prepared, self._plan
        bench = self._bench()
        offers: Offers = offered(prepared.graph, prepared.regions, prepared.target)
        smooth = self._smooth(bench, offers)
        styles = [
            Style(
                range_method=method,
                signs=prepared.target.signs,
                per_channel=prepared.target.per_channel,
                smooth=smooth,
                seed=self._seed,
            )
            for method in plan.range_methods
        ]
        best, trials = screen(bench, offers, styles, self._progress)
        fp32 = self._profile(prepared.graph.model.SerializeToString(deterministic=True), "fp32")
        profiles = {form: self._profile(trial.model, form) for form, trial in best.items() if trial.model}
        offers = useful(offers, prepared.regions, fp32, profiles)
        base = {form: trial.recipe for form, trial in best.items() if any(form in each for each in offers.values())}
        found = self._sensitivity(bench, offers, base)
        style = self._refined(bench, base, found, styles)
        corrected = self._correct(bench, offers, style)
        costs = costs_of(bench, offers, fp32, profiles, found, self._borders(), bench.calibration.elements)
        placements = self._placements(bench, offers, costs, base)
        tried = judge_placements(bench, placements, styles_of(style, corrected=corrected), self._progress)
        trials = [*trials, *tried]
        return Explored(
            trials=tuple(trials),
            predicted_us=tuple(self._predict(costs, trial) for trial in trials),
            fp32=fp32,
            profiles=profiles,
            sensitivity={form: tuple(rows) for form, rows in found.items()},
            calibration=bench.calibration,
            bench=bench,
        )

    def _bench(self) -> Bench:
        prepared = self._prepared
        self._progress.start("calibrate", len(prepared.calibrate))
        calibration = calibrate(
            prepared.graph,
            prepared.regions,
            prepared.calibrate,
            range(len(prepared.calibrate)),
            runtime=prepared.runtime,
            threads=prepared.threads,
            progress=self._progress.advance,
        )
        return Bench(
            graph=prepared.graph,
            regions=prepared.regions,
            calibration=calibration,
            judges=self._judges,
            cache=self._cache,
            context=self._context,
        )

    def _smooth(self, bench: Bench, offers: Offers) -> dict[str, float]:
        """Find SmoothQuant's divisors for the products that may run in dynamic int8."""
        groups: dict[str, list[Region]] = {}
        for region in bench.regions:
            if region.kind in (Kind.MATMUL, Kind.GEMM) and Format.INT8_DYNAMIC in offers.get(region.name, ()):
                groups.setdefault(region.inputs[0], []).append(region)
        if not groups:
            return {}
        rows = self._input_rows(bench, groups)
        alphas: dict[str, float] = {}
        divisors = {}
        self._progress.start("smooth outliers", len(groups))
        for done, (tensor, members) in enumerate(groups.items(), 1):
            weights = [bench.weight_rows(region) for region in members]
            alpha, divisor = smoothing(weights, bench.calibration.channels[tensor].max_abs, rows[tensor])
            if alpha is not None:
                alphas |= {region.name: alpha for region in members}
                divisors |= {region.name: divisor for region in members}
            self._progress.advance(done)
        bench.corrections = msgspec.structs.replace(bench.corrections, smooth=divisors)
        return alphas

    def _input_rows(self, bench: Bench, groups: Mapping[str, Sequence[Region]]) -> dict[str, np.ndarray]:
        from edgewise.forge.calibrate import observed  # noqa: PLC0415

        prepared = self._prepared
        session = prepared.runtime.load(observed(bench.graph, tuple(groups)), threads=prepared.threads)
        names = [spec.name for spec in session.outputs]
        count = min(len(prepared.calibrate), _SMOOTH_SAMPLES)
        random = np.random.default_rng(self._seed)
        parts: dict[str, list[np.ndarray]] = {name: [] for name in groups}
        for index in range(count):
            feeds = prepared.calibrate[index].feeds
            values = dict(feeds) | dict(zip(names, session.run(feeds), strict=True))
            for name, members in groups.items():
                limit = -(-_SMOOTH_ROWS // count)
                columns = input_columns(bench.graph, members[0], values[name], limit=limit, random=random)
                parts[name].append(columns[0].T)
        return {name: np.ascontiguousarray(np.concatenate(each)) for name, each in parts.items()}

    def _profile(self, model: bytes, label: str) -> Profile:
        """Profile a model, once per machine: the same model is not measured again."""
        prepared = self._prepared
        key = digest("profile", model, self._context, str(prepared.threads), str(self._plan.profile_rounds))
        known = self._costs.get(key, Profile)
        if known is not None:
            return known
        self._progress.start(f"profile {label}", None)
        profile = profiled(
            prepared.runtime,
            model,
            prepared.graph,
            prepared.regions,
            self.timing_feeds(),
            threads=prepared.threads,
            rounds=self._plan.profile_rounds,
        )
        self._costs.put(key, profile)
        return profile

    def timing_feeds(self) -> tuple[Feeds, ...]:
        """Return the samples that times are measured on."""
        return self._reference.feeds[:16]

    def _borders(self) -> BorderFit:
        prepared = self._prepared
        key = digest("borders", prepared.runtime.name, prepared.runtime.version(), str(prepared.threads))
        known = self._costs.get(key, BorderFit)
        if known is not None:
            return known
        fit = fit_borders(prepared.runtime, threads=prepared.threads)
        self._costs.put(key, fit)
        return fit

    def _sensitivity(
        self, bench: Bench, offers: Offers, base: Mapping[Format, object]
    ) -> dict[Format, list[Sensitivity]]:
        if not self._plan.sensitivity_samples or not base:
            return {}
        return sensitivities(bench, offers, base, self._positions(), self._progress)

    def _positions(self) -> tuple[int, ...]:
        count = min(self._plan.sensitivity_samples, len(self._reference.feeds))
        spread = np.linspace(0, len(self._reference.feeds) - 1, count).round().astype(int)
        return tuple(dict.fromkeys(spread.tolist()))

    def _refined(
        self, bench: Bench, base: Mapping[Format, object], found: Mapping[Format, list[Sensitivity]], styles: Sequence[Style]
    ) -> Style:
        """Return the best style of the screen, with methods of their own for regions that do better so."""
        recipe = base.get(Format.INT8_STATIC)
        if recipe is None:
            return styles[0]
        used = {each.range_method for each in recipe.regions}
        style = next(each for each in styles if {each.range_method} == used)
        if not self._plan.refined_units or Format.INT8_STATIC not in found:
            return style
        methods = refine_ranges(
            bench,
            recipe,
            found[Format.INT8_STATIC],
            self._plan.range_methods,
            self._positions(),
            limit=self._plan.refined_units,
            progress=self._progress,
        )
        return msgspec.structs.replace(style, methods=methods)

    def _correct(self, bench: Bench, offers: Offers, style: Style) -> bool:
        """Work out reconstructed weights and bias shifts for the static regions, on their final grids."""
        form = Format.INT8_STATIC
        wanted = [region for region in bench.regions if region.weight and form in offers.get(region.name, ())]
        count = min(self._plan.moment_samples, len(self._prepared.calibrate))
        if not wanted or not count:
            return False
        recipe = uniform(bench.regions, offers, form, style, name="corrections")
        parameters = parameters_for(bench.graph, bench.regions, recipe, bench.calibration, bench.corrections)
        self._progress.start("moments of inputs", count)
        found = moments(
            bench.graph,
            wanted,
            self._prepared.calibrate,
            range(count),
            grids=parameters.grids,
            runtime=self._prepared.runtime,
            threads=self._prepared.threads,
            seed=self._seed,
            progress=self._progress.advance,
        )
        self._progress.start("reconstruct weights", None)
        rounded = reconstructed(bench.graph, wanted, parameters, found)
        bench.corrections = msgspec.structs.replace(
            bench.corrections,
            rounded=rounded,
            bias_shift=bias_shifts(bench.graph, wanted, parameters, parameters.weights, found),
            rounded_bias_shift=bias_shifts(bench.graph, wanted, parameters, rounded, found),
        )
        return True

    def _placements(
        self, bench: Bench, offers: Offers, costs: Costs, base: Mapping[Format, object]
    ) -> list[tuple[str, Placement]]:
        """Return the placements worth judging: each format everywhere, and the sweep."""
        found: list[tuple[str, Placement]] = []
        for form in base:
            everywhere = {
                region.name: form for region in bench.regions if form in offers.get(region.name, ())
            }
            found.append((f"all {form}", everywhere))
        self._progress.start("place by measured cost", None)
        for placement in sweep(bench, costs, count=self._plan.placements):
            if all(placement != known for _, known in found):
                found.append((f"placed {len(found) - len(base) + 1}", placement))
        return found

    def _predict(self, costs: Costs, trial: Trial) -> float | None:
        placement = {each.region: each.format for each in trial.recipe.regions}
        try:
            return predicted_us(self._prepared.regions, costs, placement, self._prepared.graph.outputs)
        except KeyError:  # a format that was dropped as too slow has no cost
            return None
