"""What is said about where a variant's error comes from: findings by region, and their table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from edgewise.contracts.verification import Finding, Grade, Table
from edgewise.forge.regions import Kind
from edgewise.forge.verify.causes import ADVICE, LOST_DB, Cause, Diagnosis
from edgewise.forge.verify.explain import Explained, How
from edgewise.forge.verify.match import Match
from edgewise.forge.verify.quantized import read_grids, same_grid, written_grids

# Good int8 regions add noise 25 to 45 dB below the signal, each.
OWN_FLOOR_DB = 15.0
CLIPPING_FLOOR_DB = 20.0
CLIPPED_DB = 30.0
# Clipping below this is less than the rounding of a good region: however narrow a grid is, it costs nothing.
HARMLESS_DB = 40.0
# A grid this many times wider than all values ever seen has lost half a bit; after a second look, those of healthy
# min-max variants of four networks are at most 1.15 times as wide.
WIDEST = 1.4
WIDEST_ON_TEST = 3.0
# A range that is at least so much of what its own method gives on these values clips them because the method does.
AS_MEANT = 0.6
# Too far at one end and too short at the other, over the values' width.
SHIFT = 0.15
# The slope of a region's values over those expected.
GAIN = 0.05
OFFSET = 0.25
# So large a part of the grids with ranges that do not fit is not about single layers.
_MISFITS = 0.1
_FEW = 4
_SHORT = 0.9
# log2 of the usual width over one.
_UNLIKE = 0.7
# Causes that are mistakes; rounding alone bends a slope too.
_PUT_WRONG = frozenset({Cause.INPUT, Cause.WEIGHT_SCALE, Cause.WEIGHT_ZERO, Cause.WEIGHT_CHANGED})
# Their ends do not depend on data.
_BOUNDED = frozenset({"Sigmoid", "HardSigmoid", "Softmax", "Tanh"})


def matched(found: Match, diagnoses: Sequence[Diagnosis], samples: int) -> Finding:
    """Say how much of fp32 could be compared."""
    regions = {region.name for region in found.regions if region.output in found.reference.float_tensors}
    seen = {each.noise.point.region.name for each in diagnoses if each.noise.point.region is not None}
    return Finding(
        name="where.matched",
        grade=Grade.NOTED,
        detail=f"{len(seen)} of {len(regions)} regions of fp32 compared on {samples} samples"
        + ("; the others have no tensor of their own in the variant" if len(seen) < len(regions) else ""),
        value=len(seen),
        reference=len(regions),
    )


def regions(diagnoses: Sequence[Diagnosis]) -> Iterator[Finding]:
    """Yield regions that add much noise of their own, and were not given it on purpose."""
    bad = [each for each in diagnoses if not each.own_db >= OWN_FLOOR_DB and not _narrowed(each)]
    for each in sorted(bad, key=_by_own):
        yield Finding(
            name="where.region",
            grade=Grade.FLAG,
            subject=each.name,
            detail=f"{each.noise.point.op} adds noise only {_db(each.own_db)} below its signal; cause: {each.cause}",
            value=_finite(each.own_db),
            limit=OWN_FLOOR_DB,
            unit="dB",
            advice=ADVICE[each.cause],
        )
    if not bad:
        least = min(diagnoses, key=_by_own, default=None)
        named = least is not None and math.isfinite(least.own_db)
        yield Finding(
            name="where.region",
            grade=Grade.PASS,
            detail=f"no region adds much noise; the most by {least.name}, {_db(least.own_db)} below its signal"
            if least is not None and named
            else "no region adds any noise",
            value=_finite(least.own_db) if least is not None else None,
            limit=OWN_FLOOR_DB,
            unit="dB",
        )


def saturation(diagnoses: Sequence[Diagnosis]) -> Iterator[Finding]:
    """Yield grids that clip what matters."""
    gridded = [each for each in diagnoses if each.noise.point.grid is not None]
    bad = [each for each in gridded if _too_narrow(each) and not _is_paid_for(each)]
    for each in bad:
        yield Finding(
            name="where.saturation",
            grade=Grade.FLAG,
            subject=each.name,
            detail=f"{each.clipped:.2%} of the values lie beyond the grid ({_ends(each)}; fp32 reaches "
            f"{each.noise.low:.4g} .. {each.noise.high:.4g}): clipping noise {_db(each.clipping_db)} below the signal",
            value=each.clipped,
            unit="%",
            advice=ADVICE[Cause.SATURATION],
        )
    if not bad:
        most = max((each.clipped for each in gridded), default=0.0)
        yield Finding(
            name="where.saturation",
            grade=Grade.PASS,
            detail=f"no grid clips what matters; at most {most:.2%} of a tensor's values lie beyond it",
            value=most,
            unit="%",
        )


def _too_narrow(each: Diagnosis) -> bool:
    """Say whether clipping does real harm, or much more than the best range would allow."""
    if _clips_as_meant(each):
        return False
    wasted = each.clipping_db < CLIPPED_DB and each.cause is Cause.SATURATION and each.lost_db > LOST_DB
    return each.clipping_db < CLIPPING_FLOOR_DB or wasted


def _clips_as_meant(each: Diagnosis) -> bool:
    """Say whether a recipe's method made a grid as narrow as it is, and no other data: the search judged its price."""
    return each.as_meant is not None and each.as_meant >= AS_MEANT


def _narrowed(each: Diagnosis) -> bool:
    """Say whether a search clipped a tensor because the model's output came closer to fp32 for it."""
    return each.cause is Cause.SATURATION and each.share < 1 and _clips_as_meant(each)


def _is_paid_for(each: Diagnosis) -> bool:
    """Say whether the run calibrated a grid to be so narrow, and its region is not noisy for it.

    No fault then, though inputs of the test split reach further: a search may clip rare values to round all others
    finer. What it costs is judged as the noise of any region; many such ranges are stale calibration (`calibration`).
    """
    return each.is_calibrated and each.clipping_db >= OWN_FLOOR_DB


def ranges(diagnoses: Sequence[Diagnosis]) -> Iterator[Finding]:
    """Yield grids that are too wide, that are unlike this variant's others, or that are shifted."""
    ranged = [each for each in diagnoses if each.width is not None and _depends_on_data(each)]
    usual, spread = _habit(ranged)
    wide = [each for each in ranged if _too_wide(each)]
    unlike = [each for each in ranged if _short_by(each, usual) > spread and _clips_unasked(each)]
    for each in (*wide, *unlike):
        others = "" if each in wide else f"; this variant's others are {usual:.2f} times as wide"
        width = each.width_on_test if each in wide else each.width
        yield Finding(
            name="where.range",
            grade=Grade.FLAG,
            subject=each.name,
            detail=f"the grid is {width:.2f} times as wide as the values seen "
            f"({each.noise.low:.4g} .. {each.noise.high:.4g}){others}",
            value=width,
            limit=WIDEST if each in wide else None,
            advice=ADVICE[Cause.RANGE] if each in wide else ADVICE[Cause.INPUT],
        )
    for each in ranged:
        if abs(each.shift) > SHIFT:
            where_to = "high" if each.shift > 0 else "low"
            yield Finding(
                name="where.zero_point",
                grade=Grade.FLAG,
                subject=each.name,
                detail=f"the grid lies {abs(each.shift):.2f} of the values' width too {where_to}"
                f": it ends at {_ends(each)}, the values at {each.noise.low:.4g} .. {each.noise.high:.4g}",
                value=each.shift,
                limit=SHIFT,
                advice=ADVICE[Cause.ZERO],
            )
    if not wide and not unlike:
        most = max((each.width or 0.0 for each in ranged), default=None)
        said = f"; the widest is {most:.2f} times as wide" if most is not None else ""
        yield Finding(
            name="where.range",
            grade=Grade.PASS,
            detail=f"no grid is much wider than the values it holds{said}",
            value=most,
            limit=WIDEST,
        )


def _clips_unasked(each: Diagnosis) -> bool:
    return each.clipping_db < HARMLESS_DB and not (_clips_as_meant(each) or _is_paid_for(each))


def _habit(ranged: Sequence[Diagnosis]) -> tuple[float, float]:
    """Return the usual width of a variant's grids, and how far (log2) short of it one is unlike the others."""
    widths = np.log2([each.width for each in ranged if each.width])
    if len(widths) < _FEW:
        return 1.0, math.inf
    middle = float(np.median(widths))
    # 1.4826 times the median absolute deviation estimates the standard deviation of a normal distribution.
    deviation = 1.4826 * float(np.median(np.abs(widths - middle)))
    return 2.0**middle, max(_UNLIKE, 4 * deviation)


def _short_by(each: Diagnosis, usual: float) -> float:
    return math.log2(usual / each.width) if each.width else 0.0


def _too_wide(each: Diagnosis) -> bool:
    """Say whether nothing seen needs the width, or nothing in the test split by far: then few samples dictated it."""
    if each.width is None or each.width_on_test is None or not _depends_on_data(each):
        return False
    return each.width > WIDEST or each.width_on_test > WIDEST_ON_TEST


def suspected(each: Diagnosis) -> bool:
    """Say whether more samples should be looked at before a range is called too wide or shifted."""
    return _too_wide(each) or (abs(each.shift) > SHIFT and _depends_on_data(each))


def _depends_on_data(each: Diagnosis) -> bool:
    grid, region = each.noise.point.grid, each.noise.point.region
    moves = region is not None and region.kind is Kind.PASS
    return not moves and each.noise.point.op not in _BOUNDED and grid is not None and grid.dtype.itemsize == 1


def _ends(each: Diagnosis) -> str:
    grid = each.noise.point.grid
    return f"{float(np.min(grid.low)):.4g} .. {float(np.max(grid.high)):.4g}" if grid is not None else ""


def scales(diagnoses: Sequence[Diagnosis]) -> Iterator[Finding]:
    """Yield regions whose values are a multiple of what they should be, or shifted against it."""
    off = [each for each in diagnoses if each.rest_db < 2 * OWN_FLOOR_DB and each.cause in _PUT_WRONG]
    scaled = [each for each in off if abs(each.gain - 1) > GAIN]
    shifted = [each for each in off if abs(each.gain - 1) <= GAIN and each.offset > OFFSET]
    for each in scaled:
        yield Finding(
            name="where.scale",
            grade=Grade.FLAG,
            subject=each.name,
            detail=f"the variant's values are {each.gain:.3f} times what its inputs and fp32's weights make",
            value=each.gain,
            reference=1.0,
            advice=ADVICE[each.cause],
        )
    for each in shifted:
        yield Finding(
            name="where.offset",
            grade=Grade.FLAG,
            subject=each.name,
            detail=f"a channel is shifted by {each.offset:.2f} times the root mean square of the tensor",
            value=each.offset,
            reference=0.0,
            limit=OFFSET,
            advice=ADVICE[each.cause],
        )
    if not scaled and not shifted:
        yield Finding(name="where.scale", grade=Grade.PASS, detail="no region multiplies or shifts its values")


def grids(found: Match) -> Iterator[Finding]:
    """Yield tensors that are read on another grid than they were written on."""
    written = written_grids(found.variant)
    for tensor, reader, grid in read_grids(found.variant):
        if tensor in written and not same_grid(written[tensor], grid):
            yield Finding(
                name="where.grid",
                grade=Grade.FAIL,
                subject=tensor,
                detail=f"written with {_said(written[tensor])} and read by {reader} with {_said(grid)}",
                advice="give both the same scale and zero point",
            )


def _said(grid: object) -> str:
    scale, zero = np.ravel(getattr(grid, "scale", 0)), np.ravel(getattr(grid, "zero_point", 0))
    return f"scale {float(scale[0]):.6g} and zero point {int(zero[0])}"


def weights(layers: dict[str, Explained]) -> Iterator[Finding]:
    """Yield layers whose weights stand on a wrong scale or zero point, or were changed."""
    bad = {name: each for name, each in layers.items() if each.changes}
    for name, each in bad.items():
        yield Finding(
            name="where.weights",
            grade=Grade.FLAG,
            subject=name,
            detail=words(each),
            value=len(each.changes),
            unit="channels",
            advice=ADVICE[Cause.WEIGHT_CHANGED],
        )
    if layers and not bad:
        yield Finding(
            name="where.weights",
            grade=Grade.PASS,
            detail=f"the weights of all {len(layers)} layers are fp32's"
            + ("" if all(each.how is How.SAME for each in layers.values()) else ", rounded"),
        )


def words(each: Explained) -> str:
    """Say what became of a layer's weights."""
    rows = ", ".join(str(change.row) for change in each.changes[:5]) + (", ..." if len(each.changes) > 5 else "")
    share = f"{len(each.changes)} of {each.rows} output channels ({rows})"
    first = each.changes[0]
    if all(change.gain is not None for change in each.changes):
        factor = f"{each.gain:.4g}" if each.gain is not None else f"{first.gain:.4g} (channel {first.row})"
        return f"{share} are fp32's times {factor}: a wrong scale, or rescaled channels"
    if all(change.offset is not None for change in each.changes):
        return f"{share} are fp32's plus {first.offset:+.2f} steps (channel {first.row}): a wrong zero point"
    return (
        f"{share} are not fp32's, rounded: element {first.index} of channel {first.row} is {first.found:.6g}, "
        f"fp32 has {first.expected:.6g}"
    )


def calibration(diagnoses: Sequence[Diagnosis]) -> Iterator[Finding]:
    """Say whether the ranges as a whole come from other data."""
    ranged = [each for each in diagnoses if each.width is not None and _depends_on_data(each)]
    if len(ranged) < _FEW:
        return
    narrow = sum(_too_narrow(each) or _wasteful(each) for each in ranged)
    wide = sum(_too_wide(each) for each in ranged)
    share = (narrow + wide) / len(ranged)
    misfit = share >= _MISFITS and narrow + wide >= _FEW
    yield Finding(
        name="where.calibration",
        grade=Grade.FLAG if misfit else Grade.PASS,
        detail=f"of {len(ranged)} ranges {narrow} are too narrow for this data and {wide} too wide",
        value=share,
        limit=_MISFITS,
        unit="%",
        advice="calibrate again, with data like this and without outliers" if misfit else "",
    )


def _wasteful(each: Diagnosis) -> bool:
    """Say whether a grid short of the values errs much more than the best range would: not a chosen clipping."""
    short = each.width is not None and each.width < _SHORT and each.lost_db > LOST_DB
    return short and not _clips_as_meant(each)


def table(diagnoses: Sequence[Diagnosis]) -> Table:
    """Return all regions, the noisiest first."""
    return Table(
        title="Noise by region, the worst first",
        columns=("region", "op", "own SQNR, dB", "with inherited, dB", "clipped", "grid width", "cause"),
        rows=tuple(
            (
                each.name,
                each.noise.point.op,
                _rounded(each.own_db),
                _rounded(each.total_db),
                round(each.clipped, 5) if each.noise.point.grid is not None else None,
                round(each.width, 3) if each.width is not None else None,
                str(each.cause),
            )
            for each in sorted(diagnoses, key=_by_own)
        ),
        note="own: against fp32 on the variant's own inputs; grid width: over that of all values seen",
    )


def _by_own(each: Diagnosis) -> float:
    return -math.inf if math.isnan(each.own_db) else each.own_db


def _finite(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None


def _rounded(value: float) -> float | None:
    return round(value, 1) if math.isfinite(value) else None


def _db(value: float) -> str:
    return f"{value:.1f} dB" if math.isfinite(value) else ("infinitely" if value > 0 else "not finitely")
