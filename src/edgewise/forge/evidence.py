"""Put what was measured into the run's document: figures, candidates, regions, flips."""

from __future__ import annotations

from edgewise.contracts.evidence import (
    Candidate,
    FlipEvidence,
    HistogramEvidence,
    RegionEvidence,
    Status,
)
from edgewise.contracts.recipe import Format, Recipe, RegionRecipe
from edgewise.forge.calibrate import Calibration
from edgewise.forge.costs import Profile
from edgewise.forge.data.labels import Labelled
from edgewise.forge.data.split import Subset
from edgewise.forge.explore import Explored
from edgewise.forge.graph import Graph
from edgewise.forge.judge import Comparison, Judgement
from edgewise.forge.parameters import rows_of
from edgewise.forge.regions import Kind, Region
from edgewise.forge.search.bench import Trial
from edgewise.forge.tasks.base import Task
from edgewise.forge.weights import parameters_for
from edgewise.numerics.grid import Grid

# The report draws so many bins, and keeps so many tensors and flips.
_BINS = 128
_HISTOGRAMS = 24
_FLIPS = 24
# A channel whose weights reach so many times the median channel's is called an outlier.
_OUTLIER = 8.0
_SATURATED = 0.001


def candidate_of(trial: Trial, *, runtime: str, higher_is_better: bool, size_mib: float | None) -> Candidate:
    """Return a judged (or failed) trial as a candidate that was not timed."""
    judgement = trial.judgement
    return Candidate(
        name=trial.recipe.name,
        recipe=trial.recipe,
        status=Status.FAILED if judgement is None else Status.SCREENED,
        reason=trial.failure,
        path=None,
        runtime=runtime,
        score=judgement.score if judgement else None,
        higher_is_better=higher_is_better,
        metrics=judgement.metrics if judgement else {},
        flip_rate=judgement.flip_rate if judgement else None,
        sqnr_db=judgement.sqnr_db if judgement else None,
        cosine=judgement.cosine if judgement else None,
        divergence=judgement.divergence if judgement else None,
        size_mib=size_mib,
    )


def accuracy_of(judgement: Judgement) -> dict[str, object]:
    """Return a judgement's figures under the names that Figures gives them."""
    return {
        "score": judgement.score,
        "metrics": judgement.metrics,
        "flip_rate": judgement.flip_rate,
        "sqnr_db": judgement.sqnr_db,
        "cosine": judgement.cosine,
        "divergence": judgement.divergence,
    }


def region_evidence(
    graph: Graph, explored: Explored, recipe: Recipe, profile: Profile | None
) -> tuple[RegionEvidence, ...]:
    """Return every region with its format, sensitivity, times, and the kernel that really ran."""
    plans = {each.region: each for each in recipe.regions}
    rows = []
    for region in explored.bench.regions:
        plan = plans.get(region.name)
        form = plan.format if plan else Format.FP32
        sensed = explored.sensitivity.get(form if form is not Format.FP32 else Format.INT8_STATIC, ())
        found = next((each for each in sensed if each.region == region.name), None)
        kernel = profile.kernels.get(region.name) if profile else None
        rows.append(
            RegionEvidence(
                region=region.name,
                kind=str(region.op),
                format=str(form),
                cause=cause(graph, region, explored.calibration, plan, explored) if found else "",
                sqnr_db=found.sqnr_db if found else None,
                divergence=found.divergence if found else None,
                time_fp32_us=explored.fp32.region_us.get(region.name),
                time_variant_us=profile.region_us.get(region.name) if profile else None,
                kernel=kernel.kind if kernel else None,
                runs_quantized=kernel.runs_quantized if kernel else None,
            )
        )
    return tuple(rows)


def cause(graph: Graph, region: Region, calibration: Calibration, plan: RegionRecipe | None, explored: Explored) -> str:
    """Name the likely reason for a region's loss: outlier channel, saturation, range or rounding.

    Outlier: one weight row many times the median one under a shared scale, or one input of a row many
    times its others. Saturation: more than 0.1 % of the calibrated values lie outside the grid. Range:
    the grid's step is large against the bulk of the values. Else it is the rounding of many small errors.
    """
    if region.weight is not None and region.kind is not Kind.LSTM:
        rows = abs(rows_of(graph, region, graph.constants[region.weight]))
        peaks, typical = rows.max(axis=1), rows.mean(axis=1)
        if float((peaks / (typical + 1e-12)).max()) > _OUTLIER * 4:
            return "outlier channel"
    histogram = calibration.histograms.get(region.output)
    if histogram is None or histogram.count == 0:
        return "rounding"
    if plan is not None:
        recipe = Recipe(name="cause", regions=(plan,))
        grid = parameters_for(graph, (region,), recipe, calibration, explored.bench.corrections).grids.get(
            region.output
        )
        if grid is not None and _outside(calibration, region.output, grid) > _SATURATED:
            return "saturation"
    spread = max(-histogram.low, histogram.high)
    deviation = histogram.variance**0.5
    return "range" if deviation > 0 and spread > _OUTLIER * 2 * deviation else "rounding"


def _outside(calibration: Calibration, tensor: str, grid: Grid) -> float:
    histogram = calibration.histograms[tensor]
    low, high = _range(grid)
    edges, counts = histogram.edges, histogram.counts
    outside = counts[(edges[1:] <= low) | (edges[:-1] >= high)].sum()
    return float(outside / max(histogram.count, 1))


def _range(grid: Grid) -> tuple[float, float]:
    scale, zero = float(grid.scale), int(grid.zero_point)
    return (grid.qmin - zero) * scale, (grid.qmax - zero) * scale


def histogram_evidence(explored: Explored, recipe: Recipe) -> tuple[HistogramEvidence, ...]:
    """Return the histograms of the most sensitive quantized tensors, with the ranges they were given."""
    bench = explored.bench
    grids = parameters_for(bench.graph, bench.regions, recipe, bench.calibration, bench.corrections).grids
    ranked = sorted(explored.sensitivity.get(Format.INT8_STATIC, ()), key=lambda each: -each.divergence)
    names = [each.region for each in ranked] or [each.region for each in recipe.regions]
    return tuple(
        _histogram(bench.calibration, name, grids[name])
        for name in names
        if name in grids and name in bench.calibration.histograms
    )[:_HISTOGRAMS]


def _histogram(calibration: Calibration, tensor: str, grid: Grid) -> HistogramEvidence:
    histogram = calibration.histograms[tensor]
    counts, edges = histogram.counts, histogram.edges
    step = -(-len(counts) // _BINS)
    merged = [int(counts[at : at + step].sum()) for at in range(0, len(counts), step)]
    low, high = _range(grid)
    return HistogramEvidence(
        tensor=tensor,
        low=float(edges[0]),
        high=float(edges[0] + histogram.width * step * len(merged)),
        counts=tuple(merged),
        range_low=low,
        range_high=high,
    )


def flip_evidence(task: Task, comparison: Comparison, split: Labelled) -> tuple[FlipEvidence, ...]:
    """Return the flips of which fp32 was most sure first: those say most about what broke.

    Samples are numbered as in the whole of the user's split, of which `split` may be a part.
    """
    rows = [
        FlipEvidence(
            index=split.indices[at] if isinstance(split, Subset) else at,
            reference_answer=task.answer(comparison.reference_predictions[at]),
            variant_answer=task.answer(comparison.variant_predictions[at]),
            target=None if comparison.targets[at] is None else str(comparison.targets[at]),
            margin=comparison.margins[at],
        )
        for at in comparison.variant.flipped
    ]
    return tuple(sorted(rows, key=lambda each: -(each.margin or 0.0))[:_FLIPS])
