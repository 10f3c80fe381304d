"""Correct the cost model with measured placements: what profiles of single kernels do not show.

Where a runtime keeps floats and integers in different memory layouts, a border also reorders: it costs more than
its own two kernels. And a kernel timed between others that are all of its format runs faster or slower
than between others. Both are in the difference between what placements were predicted to take and what they take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.recipe import Format
from edgewise.forge.placement import Border, Costs, Placement, crossings, regions_us
from edgewise.forge.regions import Region

# Weight of the belief that profile and probe were right, against one measured placement.
_PRIOR = 0.05
# No format is taken to be faster than this share of what its profile says.
_FASTEST = 0.4


def with_measured(
    regions: tuple[Region, ...],
    costs: Costs,
    outputs: tuple[str, ...],
    elements: Mapping[str, int],
    placements: Sequence[Placement],
    measured_us: Sequence[float],
) -> Costs:
    """Return the costs with `call + element * elements` added to every border, and a factor on each format.

    Least squares of what the predictions miss, over the number of borders of each placement, their elements (both
    not negative), and the time each format takes in it; a small ridge keeps them apart where the placements are alike.
    """
    from scipy.optimize import lsq_linear  # noqa: PLC0415 - slow to import

    forms = sorted({form for each in placements for form in each.values()} - {Format.FP32})
    rows, missing = [], []
    for placement, measured in zip(placements, measured_us, strict=True):
        quantized, dequantized = crossings(regions, placement, outputs)
        known = [name for name in (*quantized, *dequantized) if name in costs.borders]
        plain = sum(costs.borders[name].quantize_us for name in quantized if name in costs.borders)
        plain += sum(costs.borders[name].dequantize_us for name in dequantized if name in costs.borders)
        crossed = [float(len(known)), sum(elements[name] for name in known) / 1000.0]
        rows.append([*crossed, *(_us_in(costs, placement, form) for form in forms)])
        missing.append(measured - regions_us(regions, costs, placement) - plain)
    matrix: NDArray[np.float64] = np.array(rows)
    scale = np.maximum(np.abs(matrix).max(axis=0), 1e-9)
    lowest = np.concatenate([np.zeros(2), (_FASTEST - 1.0) * scale[2:]])
    fitted = lsq_linear(
        np.vstack([matrix / scale, _PRIOR * np.eye(len(scale))]),
        np.concatenate([missing, np.zeros(len(scale))]),
        bounds=(lowest, np.inf),
    ).x
    call_us, thousand_us, *more = fitted / scale
    factors = {form: 1.0 + each for form, each in zip(forms, more, strict=True)}
    added = {name: call_us + thousand_us * elements[name] / 1000.0 for name in costs.borders}
    borders = {
        name: Border(quantize_us=each.quantize_us + added[name], dequantize_us=each.dequantize_us + added[name])
        for name, each in costs.borders.items()
    }
    times = {
        name: {form: each * factors.get(form, 1.0) for form, each in row.items()} for name, row in costs.time_us.items()
    }
    return msgspec.structs.replace(costs, borders=borders, time_us=times)


def _us_in(costs: Costs, placement: Placement, form: Format) -> float:
    """Return what a placement's regions in one format take by their profile, microseconds."""
    return sum(costs.time_us[name][form] for name, each in placement.items() if each is form)
