"""A row that holds the codes which its run kept was not changed since, however far error feedback took it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from edgewise.contracts.recipe import Format, Rounding
from edgewise.forge.kept import Kept
from edgewise.forge.lower.lowering import lower
from edgewise.forge.parameters import WeightValues
from edgewise.forge.search.options import Style
from edgewise.forge.verify.match import load, match
from edgewise.forge.verify.where import explained
from edgewise.forge.weights import Corrections, parameters_for
from tests.unit.forge.nets import Workshop, residual

LAYER, ROW = "first_relu", 4


@pytest.mark.parametrize(("kept_too", "named"), [(True, 0), (False, 1)])
def test_codes_are_named_only_where_the_run_did_not_keep_them(tmp_path: Path, *, kept_too: bool, named: int) -> None:
    shop = Workshop(residual())
    recipe = shop.recipe(shop.everywhere(Format.INT8_STATIC), Style(rounding=Rounding.GPTQ))
    plain = parameters_for(shop.graph, shop.regions, recipe, shop.calibration, Corrections()).weights[LAYER]
    codes = plain.values.copy()
    codes[ROW, :8] = np.where(codes[ROW, :8] > 0, codes[ROW, :8] - 30, codes[ROW, :8] + 30)
    far = WeightValues(values=codes, scale=plain.scale)
    corrections = Corrections(rounded={LAYER: far})
    parameters = parameters_for(shop.graph, shop.regions, recipe, shop.calibration, corrections)
    reference, variant = tmp_path / "fp32.onnx", tmp_path / "variant.onnx"
    onnx.save(shop.model, reference)
    onnx.save(lower(shop.graph, shop.regions, recipe, parameters), variant)
    noted = corrections if kept_too else msgspec.structs.replace(corrections, rounded={LAYER: plain})
    kept = Kept(tensors=tuple(shop.calibration.histograms), ranges={}, corrections=noted)
    found = explained(match(reference, reference, load(variant)), kept)
    assert sum(len(each.changes) for each in found.values()) == named
