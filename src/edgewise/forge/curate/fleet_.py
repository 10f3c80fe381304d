"""Calibration samples that show what the fleet sees: from sketches of devices' inputs to samples of a pool.

Devices count how far each channel goes in an inference, in bins of half an octave (`contracts.capture`). Every bin that
the fleet has filled beyond its noise is something to cover, and weighs what it was counted; a sample of the pool
covers the bins of its own extremes. Choosing is a weighted set cover, as in `choose`. What nothing in the pool covers
is named, so that it can be collected.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.capture import (
    EDGES,
    MARGIN,
    MARGIN_EDGES,
    FleetCapture,
    Side,
    noise_bias,
    noise_variance,
    side_of,
)
from edgewise.contracts.curation import CalibrationRequest, Lack, Picked
from edgewise.contracts.task import TaskConfig
from edgewise.errors import DataError, InputError
from edgewise.forge.curate.observe import MOST_SAMPLES
from edgewise.forge.curate.pool import Pool, open_pool
from edgewise.forge.curate.write import check_output, write_selection
from edgewise.forge.data.request import write_request
from edgewise.forge.data.split import at_most
from edgewise.forge.importing.sandbox import import_model
from edgewise.forge.progress import Progress
from edgewise.forge.targets import load_target
from edgewise.numerics.channels import captured_channels, extremes, sides
from edgewise.numerics.cover import greedy_cover
from edgewise.runtimes import runtime

LOW_MARGIN = 0.1
SURE = 4.0
"""Standard deviations of the added noise that a count must stand above what noise alone makes of an empty bin."""
FEWEST_SHARE = 1e-4
"""Of the inferences: what is rarer than that is left out, so that a broken sensor somewhere does not steer."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """A bin that the fleet has filled: where, which, and which share of the inferences fell there."""

    side: Side
    bin: int
    share: float


def decode_capture(data: bytes) -> FleetCapture:
    """Return what a server gave out. Raises InputError where it is no such document."""
    try:
        return msgspec.json.decode(data, type=FleetCapture)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"the fleet's sketches cannot be read: {error}",
            required="the answer of GET /api/v1/captures/PRODUCT/RELEASE",
            next_step="save it again, or give the address",
        ) from error


def cells_of(capture: FleetCapture) -> tuple[Cell, ...]:
    """Return the bins that were filled beyond the devices' noise, with what noise adds on average taken off."""
    scale = capture.noise / capture.reports if capture.reports else 0.0
    floor = capture.reports * noise_bias(scale)
    threshold = floor + SURE * math.sqrt(capture.reports * noise_variance(scale))
    found = []
    for name, sketch in capture.sketches.items():
        side = side_of(name)
        if side is None or sketch.edges != EDGES:
            continue
        counts = np.maximum(np.array(sketch.counts, np.float64) - floor, 0.0)
        counts[np.array(sketch.counts) <= threshold] = 0.0
        total = counts.sum()
        for at in np.flatnonzero(counts):
            share = float(counts[at] / total)
            if share >= FEWEST_SHARE:
                found.append(Cell(side=side, bin=int(at), share=share))
    return tuple(found)


def covered_by(cells: Sequence[Cell], bins: NDArray[np.int64], names: Sequence[tuple[Side, Side]]) -> NDArray[np.bool_]:
    """Return whether a sample shows a cell [samples, cells]; `bins` of its extremes are [samples, 2, channels]."""
    place = {side: (end, at) for at, pair in enumerate(names) for end, side in enumerate(pair)}
    found = np.zeros((len(bins), len(cells)), bool)
    for at, cell in enumerate(cells):
        if cell.side in place:
            end, channel = place[cell.side]
            found[:, at] = bins[:, end, channel] == cell.bin
    return found


def request_calibration(  # noqa: PLR0913 - the options of the command
    capture: FleetCapture,
    pools: Sequence[Path],
    *,
    model: str,
    config: TaskConfig,
    base: Path,
    work: Path,
    seed: int,
    output: Path,
    request: Path,
    threads: int,
    progress: Progress,
) -> CalibrationRequest:
    """Choose at most `config.samples` samples of `pools` that show what the fleet sees; write them and the request.

    At most `MOST_SAMPLES` of the pools are read, spread over all. Raises InputError and OutputError.
    """
    cells = cells_of(capture)
    if not cells:
        raise DataError(
            "the fleet's sketches show nothing beyond the noise that devices added",
            required="more reports, or less noise",
            next_step="wait for more devices or days, or capture with a larger epsilon",
        )
    progress.start("import", None)
    original = import_model(model, base=base, inputs={}, work=work).original
    inputs = runtime(load_target("local").runtimes[0]).load(original, threads=threads).inputs
    pool = open_pool(pools, config=config, inputs=inputs)
    check_output(pools, output)
    group = pool.group
    indices = at_most(tuple(range(len(pool))), MOST_SAMPLES, seed=seed, group=group)
    progress.start("read the pool", len(indices))
    bins, channels = _bins(pool, indices, progress)
    names = sides(channels)
    _check_sides(cells, names)
    covers = covered_by(cells, bins, names)
    covers = np.asarray(covers.reshape(-1, group, len(cells)).any(axis=1))
    weights = np.array([cell.share for cell in cells])
    rows = greedy_cover(covers, weights, min(max(1, config.samples // group), len(covers)))
    samples = [indices[row * group + step] for row in rows for step in range(group)]
    chosen = [pool.where(index) for index in samples]
    write_selection(pools, chosen, output, group=group)
    shown, possible = (np.asarray(covers[some].any(axis=0)) for some in (rows, slice(None)))
    found = CalibrationRequest(
        product=capture.product,
        release=capture.release,
        start_ms=capture.start_ms,
        stop_ms=capture.stop_ms,
        reports=capture.reports,
        noise_scale=capture.noise / capture.reports if capture.reports else 0.0,
        seen=len(cells),
        covered=float(weights[shown].sum() / weights.sum()),
        low_margins=_low_margins(capture),
        pools={str(path): len(part) for path, part in zip(pools, pool.parts, strict=True)},
        samples=tuple(Picked(pool=str(pools[part]), index=at) for part, at in chosen),
        lacking=_lacking([cell for cell, can in zip(cells, possible, strict=True) if not can], sorted(channels)),
        written=str(output),
        sha256="",
    )
    return write_request(found, request)


def _bins(pool: Pool, indices: Sequence[int], progress: Progress) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Return the bins of each sample's extremes [samples, 2, channels], and the channels of each input."""
    channels: dict[str, int] = {}
    found: list[NDArray[np.float64]] = []
    for at, index in enumerate(indices):
        feeds = dict(pool[index].feeds)
        channels = channels or captured_channels(feeds)
        if not channels:
            raise DataError(
                "the model has no input that devices sketch",
                required="floats, or whole numbers of at most 16 bits",
                next_step="select without --from-fleet",
            )
        found.append(extremes(feeds, channels))
        progress.advance(at + 1)
    return np.searchsorted(EDGES, np.stack(found), side="right"), channels


def _check_sides(cells: Sequence[Cell], names: Sequence[tuple[Side, Side]]) -> None:
    known = {side for pair in names for side in pair}
    strange = sorted({cell.side for cell in cells} - known)
    if strange:
        raise DataError(
            f"the fleet's sketches are of {', '.join(side.name for side in strange[:4])}",
            required=f"the {len(names)} channels of this model's inputs",
            next_step="give the model that the release was made of",
        )


def _low_margins(capture: FleetCapture) -> float | None:
    """Return the share of low margins; noise is taken off on average."""
    sketch = capture.sketches.get(MARGIN)
    if sketch is None or sketch.edges != MARGIN_EDGES:
        return None
    bias = capture.reports * noise_bias(capture.noise / capture.reports) if capture.reports else 0.0
    counts = np.maximum(np.array(sketch.counts, np.float64) - bias, 0.0)
    low = counts[: int(np.searchsorted(MARGIN_EDGES, LOW_MARGIN, side="right"))].sum()
    return float(low / counts.sum()) if counts.sum() else None


def _lacking(cells: Sequence[Cell], inputs: Sequence[str]) -> tuple[Lack, ...]:
    return tuple(
        Lack(
            input=inputs[cell.side.input],
            channel=cell.side.channel,
            extreme="high" if cell.side.is_high else "low",
            at_least=EDGES[cell.bin - 1] if cell.bin else None,
            below=EDGES[cell.bin] if cell.bin < len(EDGES) else None,
            share=cell.share,
        )
        for cell in sorted(cells, key=lambda cell: -cell.share)
    )
