"""Run the search strategy on a prepared model: from calibration to judged candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Thread

import msgspec
import numpy as np

from edgewise.contracts.recipe import Format, Recipe
from edgewise.contracts.target import Probe, RuntimeName
from edgewise.errors import ExecutionError, TargetError
from edgewise.forge.cache import Cache, digest
from edgewise.forge.calibrate import Calibration, calibrate
from edgewise.forge.costfit import with_measured
from edgewise.forge.costs import Profile, profiled
from edgewise.forge.equalise import channel_classes, channel_peaks, equalised
from edgewise.forge.graph import Graph
from edgewise.forge.judge import Reference
from edgewise.forge.judges import Judges
from edgewise.forge.measure.lab import Model
from edgewise.forge.measure.samples import timed_samples
from edgewise.forge.placement import Costs, Placement, load_solver, predicted_us
from edgewise.forge.prepare import Prepared
from edgewise.forge.progress import Progress
from edgewise.forge.regions import regions_of
from edgewise.forge.search.bench import Bench, Trial
from edgewise.forge.search.clipping import clip_ratios
from edgewise.forge.search.corrections import correct, smooth_products
from edgewise.forge.search.options import (
    Style,
    direct,
    formats_in,
    halvable,
    is_convolutional,
    offered,
    placed,
    uniform,
)
from edgewise.forge.search.plan import SearchPlan
from edgewise.forge.search.strategy import (
    Offers,
    costs_of,
    judge_placements,
    scaled,
    screen,
    sensitivities,
    styles_of,
    sweep,
    undominated,
    useful,
)
from edgewise.forge.sensitivity import Sensitivity
from edgewise.forge.targets import probe
from edgewise.forge.tasks.base import Feeds
from edgewise.runtimes.timing import Plan as Latency
from edgewise.runtimes.timing import speedup

FOLDED, HALVED = "fp32 folded", "fp16 folded"
# So few regions of a further format are judged one by one too.
_CHEAP_UNITS = 4
_ROUND_ACTIVATIONS = (Format.INT8_STATIC, Format.INT8_DYNAMIC)
# Formats, ranges and equalisation are compared on so many samples: what they differ by is large.
_SCREENING = 64
# Ranges of single tensors differ by less, and are tried one after another.
_CLIPPING = 64
# The cost model is corrected with so many placements, timed for so long.
_CORRECTING = 8
_CORRECTING_ROUNDS = 400
_CORRECTING_SECONDS = 4.0
# Halfway between equal channels of the activations and equal columns of the weights.
_EQUALISE_ALPHA = 0.5


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

    def __init__(  # noqa: PLR0913 - everything a search shares
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
        settle: Callable[[], object] = lambda: None,
    ) -> None:
        """`settle` returns when nothing else of this run computes, and is called before times are taken.

        `cache` holds this run's judgements, `costs` what was measured on this machine.
        """
        self._prepared = prepared
        self._plan = plan
        self._judges = judges
        self._reference = reference
        self._cache = cache
        self._costs = costs
        self._context = context
        self._seed = seed
        self._progress = progress
        self._settle = settle

    def explore(self) -> Explored:
        """Search. Failures of single candidates are among the trials."""
        Thread(target=load_solver, daemon=True).start()  # while this one waits for kernels
        prepared, plan = self._prepared, self._plan
        bench = self._equalised(self._bench(prepared.graph))
        offers = self._offers(bench)
        if plan.direct and prepared.any_size:
            offers = direct(bench.graph, bench.regions, offers)
        smooth = smooth_products(prepared, bench, offers, seed=self._seed, progress=self._progress)
        styles = [
            Style(
                range_method=method,
                signs=prepared.target.signs,
                per_channel=prepared.target.per_channel,
                smooth=smooth,
                equalise=bench.equalised,
                halved=halvable(bench.graph, bench.regions) if prepared.too_large else (),
                seed=self._seed,
            )
            for method in plan.range_methods
        ]
        best, screened = screen(bench, offers, styles, self._positions(_SCREENING), self._progress)
        self._settle()
        fp32 = self._profile(bench.graph.model.SerializeToString(deterministic=True), "fp32")
        profiles = {form: self._profile(bench.build(trial.recipe), form) for form, trial in best.items()}
        kept = undominated(bench.regions, offers, best, profiles)
        profiles = {form: profiles[form] for form in kept}
        offers = useful(offers, prepared.regions, fp32, profiles)
        base = {form: best[form].recipe for form in kept if any(form in each for each in offers.values())}
        style = self._clipped(bench, base, styles)
        if Format.INT8_STATIC in base:
            clip = dict(style.clip) or msgspec.UNSET
            base[Format.INT8_STATIC] = msgspec.structs.replace(base[Format.INT8_STATIC], clip=clip)
        found = self._sensitivity(bench, offers, base, best)
        corrected = correct(
            prepared, bench, offers, style, samples=plan.moment_samples, seed=self._seed, progress=self._progress
        )
        costs = costs_of(bench, offers, fp32, profiles, found, self._probe(), bench.calibration.elements)
        for _ in range(plan.corrections):
            costs = self._corrected(bench, offers, costs, styles[0], fp32)
        placements = self._placements(bench, offers, costs)
        tried = judge_placements(
            bench, placements, styles_of(style, corrected=corrected, direct=plan.direct), costs, self._progress
        )
        # What import folded alone may be worth more than any integers: fp32 is a candidate.
        folded = bench.try_all([placed({}, styles[0], name=HALVED if styles[0].halved else FOLDED)])
        judged = [*tried, *folded]
        trials = [*screened, *judged]
        return Explored(
            trials=tuple(trials),
            # What was screened was judged on fewer samples: it is shown, and not compared with the others.
            predicted_us=(*(None for _ in screened), *(self._predict(costs, trial) for trial in judged)),
            fp32=fp32,
            profiles=profiles,
            sensitivity={form: tuple(rows) for form, rows in found.items()},
            calibration=bench.calibration,
            bench=bench,
        )

    def _equalised(self, plain: Bench) -> Bench:
        """Return a bench on the equalised graph where static int8 comes closer to fp32 there, else `plain`."""
        prepared = self._prepared
        classes = channel_classes(plain.graph, plain.regions) if self._plan.sensitivity_samples else ()
        offers = {name: forms for name, forms in self._offers(plain).items() if Format.INT8_STATIC in forms}
        if not classes or not offers:
            return plain
        self._progress.start("equalise channels", None)
        peaks = channel_peaks(
            plain.graph, classes, prepared.calibrate, runtime=prepared.runtime, threads=prepared.threads
        )
        graph = Graph(equalised(plain.graph, classes, peaks, alpha=_EQUALISE_ALPHA))
        scaled = self._bench(graph, equalised=True)
        recipe = uniform(plain.regions, offers, Format.INT8_STATIC, Style(signs=prepared.target.signs), name="equalise")
        positions = self._positions(_SCREENING)
        trials = [bench.try_all([recipe], positions=positions)[0] for bench in (plain, scaled)]
        return scaled if trials[1].divergence < trials[0].divergence else plain

    def _offers(self, bench: Bench) -> Offers:
        return offered(bench.graph, bench.regions, self._prepared.target)

    def _bench(self, graph: Graph, *, equalised: bool = False) -> Bench:
        prepared = self._prepared
        count = min(len(prepared.calibrate), self._plan.calibration_samples)
        indices = np.linspace(0, len(prepared.calibrate) - 1, count).round().astype(int).tolist()
        self._progress.start("calibrate", count)
        regions = regions_of(graph)
        calibration = calibrate(
            graph,
            regions,
            prepared.calibrate,
            indices,
            runtime=prepared.runtime,
            threads=prepared.threads,
            progress=self._progress.advance,
        )
        return Bench(
            graph=graph,
            regions=regions,
            calibration=calibration,
            judges=self._judges,
            cache=self._cache,
            context=self._context,
            equalised=equalised,
        )

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
        return timed_samples(self._reference.feeds, count=self._plan.timed_samples)

    def _probe(self) -> Probe:
        """Return what a border costs on this machine, measured once."""
        target = self._prepared.target
        measured = target.probe or probe(target, threads=target.threads).probe
        if measured is None:
            raise TargetError(f"target {target.name!r} could not be probed", next_step="run `edgewise targets probe`")
        return measured

    def _sensitivity(
        self, bench: Bench, offers: Offers, base: Mapping[Format, Recipe], best: Mapping[Format, Trial]
    ) -> dict[Format, list[Sensitivity]]:
        """Judge regions one by one in the formats that round activations too; the other formats where that is cheap.

        Elsewhere the others are taken to be noisier or quieter than the format that most regions offer by as much as
        they are everywhere at once. Of static and dynamic int8 that is not so: an outlier that widens one range for
        all samples costs the other only where it occurs.
        """
        if not self._plan.sensitivity_samples or not base:
            return {}
        count = {form: sum(form in forms for forms in offers.values()) for form in base}
        main = max(base, key=lambda form: (count[form], form is Format.INT8_STATIC, form is Format.INT8_DYNAMIC))
        cheap = [form for form in base if form in _ROUND_ACTIVATIONS or form is main or count[form] <= _CHEAP_UNITS]
        found = sensitivities(bench, offers, {form: base[form] for form in cheap}, self._positions(), self._progress)
        for form in base:
            if form not in found:
                by = best[form].divergence / max(best[main].divergence, 1e-12)
                found[form] = scaled(found[main], by=by, offers=offers, form=form)
        return found

    def _positions(self, most: int | None = None) -> tuple[int, ...]:
        """Return samples spread over those judged on: those for single regions, or `most`."""
        count = min(self._plan.sensitivity_samples if most is None else most, len(self._reference.feeds))
        spread = np.linspace(0, len(self._reference.feeds) - 1, count).round().astype(int)
        return tuple(dict.fromkeys(spread.tolist()))

    def _clipped(self, bench: Bench, base: Mapping[Format, Recipe], styles: Sequence[Style]) -> Style:
        """Return the best style of the screen, with the ranges of its noisiest tensors narrowed or widened."""
        recipe = base.get(Format.INT8_STATIC)
        if recipe is None:
            return styles[0]
        used = {each.range_method for each in recipe.regions}
        style = next(each for each in styles if {each.range_method} == used)
        limit = self._plan.clipped_tensors
        if not limit or not is_convolutional(bench.graph, bench.regions):
            return style  # where products run in dynamic int8, few ranges are fixed
        positions = self._positions(_CLIPPING)
        clip = clip_ratios(bench, recipe, positions, limit=limit, progress=self._progress)
        return msgspec.structs.replace(style, clip=clip)

    def _corrected(self, bench: Bench, offers: Offers, costs: Costs, style: Style, fp32: Profile) -> Costs:
        """Time a few placements end to end, each format everywhere among them, and correct borders and formats."""
        outputs = bench.graph.outputs
        swept = sweep(bench, costs, count=_CORRECTING)
        if not swept:
            return costs
        placements = [*swept, *(each for _, each in _everywhere(bench, offers) if each not in swept)]
        models = [bench.build(placed(each, style, name="time")) for each in placements]
        key = digest("border fit", self._context, str(self._prepared.threads), *models)
        speedups = self._costs.get(key, list[float])
        if speedups is None:
            self._progress.start("correct the cost model", None)
            speedups = self._speedups(models)
            self._costs.put(key, speedups)
        whole = sum(fp32.region_us.values())
        return with_measured(
            bench.regions, costs, outputs, bench.calibration.elements, placements, [whole / each for each in speedups]
        )

    def _speedups(self, models: Sequence[bytes]) -> list[float]:
        prepared = self._prepared
        where = RuntimeName(prepared.runtime.name)
        timed: dict[str, Model] = {"fp32": (where, self._fp32_model())}
        timed |= {str(at): (where, model) for at, model in enumerate(models)}
        plan = Latency(rounds=_CORRECTING_ROUNDS, budget_s=_CORRECTING_SECONDS, seed=self._seed)
        times, failures = prepared.lab.time(timed, self.timing_feeds(), threads=prepared.threads, plan=plan)
        if failures:
            raise ExecutionError(next(iter(failures.values())))
        return [speedup(times["fp32"], times[str(at)], seed=self._seed)[0] for at in range(len(models))]

    def _fp32_model(self) -> bytes:
        return bytes(self._prepared.graph.model.SerializeToString(deterministic=True))

    def _placements(self, bench: Bench, offers: Offers, costs: Costs) -> list[tuple[str, Placement]]:
        """Return the placements worth judging: each format everywhere, and the sweep."""
        found = _everywhere(bench, offers)
        formats = len(found)
        self._progress.start("place by measured cost", None)
        for placement in sweep(bench, costs, count=self._plan.placements):
            if all(placement != known for _, known in found):
                found.append((f"placed {len(found) - formats + 1}", placement))
        return found

    def _predict(self, costs: Costs, trial: Trial) -> float | None:
        placement = {each.region: each.format for each in trial.recipe.regions}
        for name, form in placement.items():
            if form is Format.FP16 and form not in costs.time_us[name]:  # stored so, and run as fp32
                placement[name] = Format.FP32
        try:
            return predicted_us(self._prepared.regions, costs, placement, self._prepared.graph.outputs)
        except KeyError:  # a format that was dropped as too slow has no cost
            return None


def _everywhere(bench: Bench, offers: Offers) -> list[tuple[str, Placement]]:
    """Return the placements that give one format to every region that is offered it."""
    return [
        (f"all {form}", {region.name: form for region in bench.regions if form in offers.get(region.name, ())})
        for form in formats_in(offers)
    ]
