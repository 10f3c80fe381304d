"""Correct the cost model with measured placements: a border costs more than its own two kernels.

Where a runtime keeps floats and integers in different memory layouts, a border also reorders. That is
not in any kernel's own price, but it is in the difference between what placements were predicted to
take and what they take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from edgewise.forge.placement import Border, Costs, Placement, crossings, regions_us
from edgewise.forge.regions import Region

# Weight of the belief that the probe was right, against one measured placement.
_PRIOR = 0.05


def with_measured_borders(
    regions: tuple[Region, ...],
    costs: Costs,
    outputs: tuple[str, ...],
    elements: Mapping[str, int],
    placements: Sequence[Placement],
    measured_us: Sequence[float],
) -> Costs:
    """Return the costs with `call + element * elements` added to every border, fitted to the measurements.

    Non-negative least squares of what the predictions miss, over the number of borders of each
    placement and their elements; a small ridge keeps the two apart where the placements are alike.
    """
    from scipy.optimize import nnls  # noqa: PLC0415 - slow to import

    rows, missing = [], []
    for placement, measured in zip(placements, measured_us, strict=True):
        quantized, dequantized = crossings(regions, placement, outputs)
        known = [name for name in (*quantized, *dequantized) if name in costs.borders]
        plain = sum(costs.borders[name].quantize_us for name in quantized if name in costs.borders)
        plain += sum(costs.borders[name].dequantize_us for name in dequantized if name in costs.borders)
        rows.append([float(len(known)), sum(elements[name] for name in known) / 1000.0])
        missing.append(measured - regions_us(regions, costs, placement) - plain)
    scale = np.maximum(np.abs(np.array(rows)).max(axis=0), 1e-9)
    matrix = np.vstack([np.array(rows) / scale, _PRIOR * np.eye(2)])
    fitted, _ = nnls(matrix, np.concatenate([np.array(missing), np.zeros(2)]))
    call_us, thousand_us = fitted / scale
    added = {name: call_us + thousand_us * elements[name] / 1000.0 for name in costs.borders}
    borders = {
        name: Border(quantize_us=each.quantize_us + added[name], dequantize_us=each.dequantize_us + added[name])
        for name, each in costs.borders.items()
    }
    return msgspec.structs.replace(costs, borders=borders)
