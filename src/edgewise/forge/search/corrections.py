"""Work out what recipes may be corrected with: smoothing divisors, reconstructed weights, bias shifts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from edgewise.contracts.recipe import Format
from edgewise.forge.calibrate import observed
from edgewise.forge.moments import Moments, input_columns, moments
from edgewise.forge.parameters import FloatArray, Parameters
from edgewise.forge.prepare import Prepared
from edgewise.forge.progress import Progress
from edgewise.forge.reconstruct import bias_shifts, reconstructed, smoothed
from edgewise.forge.regions import Kind, Region
from edgewise.forge.search.bench import Bench
from edgewise.forge.search.options import Style, uniform
from edgewise.forge.search.strategy import Offers
from edgewise.forge.smooth import smoothing
from edgewise.forge.weights import parameters_for

# Smoothing is searched for on so many input rows of each product, as many of a sample as may be: they share a range.
_SMOOTH_ROWS = 512
_SMOOTH_SAMPLES = 32


def smooth_products(
    prepared: Prepared, bench: Bench, offers: Offers, *, seed: int, progress: Progress
) -> dict[str, float]:
    """Find SmoothQuant's divisors for the products that may run in dynamic int8.

    The divisors go into the bench's corrections; returned is alpha by region, for those that gain.
    """
    groups: dict[str, list[Region]] = {}
    for region in bench.regions:
        if region.kind in (Kind.MATMUL, Kind.GEMM) and Format.INT8_DYNAMIC in offers.get(region.name, ()):
            groups.setdefault(region.inputs[0], []).append(region)
    if not groups:
        return {}
    rows = _input_rows(prepared, bench, groups, seed=seed)
    alphas: dict[str, float] = {}
    divisors: dict[str, FloatArray] = {}
    progress.start("smooth outliers", len(groups))
    for done, (tensor, members) in enumerate(groups.items(), 1):
        weights = [bench.weight_rows(region) for region in members]
        alpha, divisor = smoothing(weights, bench.calibration.channels[tensor].max_abs, rows[tensor])
        if alpha is not None:
            alphas |= {region.name: alpha for region in members}
            divisors |= {region.name: divisor for region in members}
        progress.advance(done)
    bench.corrections = msgspec.structs.replace(bench.corrections, smooth=divisors)
    return alphas


def correct(
    prepared: Prepared, bench: Bench, offers: Offers, style: Style, *, samples: int, seed: int, progress: Progress
) -> bool:
    """Put reconstructed weights and bias shifts into the bench's corrections; return whether there are any."""
    count = min(samples, len(prepared.calibrate))
    if not count:
        return False
    static = _moments(prepared, bench, offers, style, Format.INT8_STATIC, count, seed=seed, progress=progress)
    if static is not None:
        wanted, parameters, found = static
        rounded = reconstructed(bench.graph, wanted, parameters, found)
        bench.corrections = msgspec.structs.replace(
            bench.corrections,
            rounded=rounded,
            bias_shift=bias_shifts(bench.graph, wanted, parameters, parameters.weights, found),
            rounded_bias_shift=bias_shifts(bench.graph, wanted, parameters, rounded, found),
        )
    dynamic = _moments(prepared, bench, offers, style, Format.INT8_DYNAMIC, count, seed=seed, progress=progress)
    if dynamic is not None:
        wanted, parameters, found = dynamic
        inputs = {name: smoothed(each, parameters.smooth.get(name)) for name, each in found.items()}
        bench.corrections = msgspec.structs.replace(
            bench.corrections, rounded_dynamic=reconstructed(bench.graph, wanted, parameters, inputs)
        )
    return static is not None or dynamic is not None


def _moments(
    prepared: Prepared,
    bench: Bench,
    offers: Offers,
    style: Style,
    form: Format,
    count: int,
    *,
    seed: int,
    progress: Progress,
) -> tuple[list[Region], Parameters, dict[str, Moments]] | None:
    """Return the regions that may take a format, their numbers in this style, and their inputs' moments."""
    wanted = [region for region in bench.regions if region.weight is not None and form in offers.get(region.name, ())]
    if not wanted:
        return None
    recipe = uniform(bench.regions, offers, form, style, name="corrections")
    parameters = parameters_for(bench.graph, bench.regions, recipe, bench.calibration, bench.corrections)
    progress.start(f"reconstruct weights, {form}", count)
    found = moments(
        bench.graph,
        wanted,
        prepared.calibrate,
        range(count),
        grids=parameters.grids,
        runtime=prepared.runtime,
        threads=prepared.threads,
        seed=seed,
        progress=progress.advance,
    )
    return wanted, parameters, found


def _input_rows(
    prepared: Prepared, bench: Bench, groups: Mapping[str, Sequence[Region]], *, seed: int
) -> dict[str, list[FloatArray]]:
    """Return rows [n, k] of every tensor that a group of products reads, sample by sample."""
    session = prepared.runtime.load(observed(bench.graph, tuple(groups)), threads=prepared.threads)
    names = [spec.name for spec in session.outputs]
    count = min(len(prepared.calibrate), _SMOOTH_SAMPLES)
    random = np.random.default_rng(seed)
    parts: dict[str, list[FloatArray]] = {name: [] for name in groups}
    for index in range(count):
        feeds = prepared.calibrate[index].feeds
        values = dict(feeds) | dict(zip(names, session.run(feeds), strict=True))
        for name, members in groups.items():
            limit = -(-_SMOOTH_ROWS // count)
            columns = input_columns(bench.graph, members[0], values[name], limit=limit, random=random)
            parts[name].append(columns[0].T)
    return parts
