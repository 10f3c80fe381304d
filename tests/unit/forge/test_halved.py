"""Where fp32 is larger than the budget allows, what stays float is stored as fp16 and runs as before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgewise.contracts.budget import Budget
from edgewise.contracts.project import Effort
from edgewise.contracts.recipe import Format
from edgewise.contracts.run import Run
from edgewise.forge.graph import Graph
from edgewise.forge.optimize import optimize
from edgewise.forge.regions import regions_of
from edgewise.forge.search.options import Style, halvable, placed
from tests.unit.forge.children import demo_project, small_demo
from tests.unit.forge.nets import residual


def halves_of(model: onnx.ModelProto) -> tuple[str, ...]:
    graph = Graph(onnx.shape_inference.infer_shapes(model))
    return halvable(graph, regions_of(graph))


def test_every_region_that_stays_float_is_stored_as_fp16() -> None:
    first, *others = halves_of(residual())
    recipe = placed({first: Format.INT8_STATIC, others[0]: Format.FP32}, Style(halved=(first, *others)), name="any")
    assert {each.region: each.format for each in recipe.regions} == {
        first: Format.INT8_STATIC,
        **dict.fromkeys(others, Format.FP16),
    }


def test_weights_beyond_the_range_of_fp16_stay_fp32() -> None:
    model = residual()
    before = halves_of(model)
    wide = next(each for each in model.graph.initializer if len(each.dims) == 4)
    values = numpy_helper.to_array(wide).copy()
    values.flat[0] = 70_000.0
    wide.CopyFrom(numpy_helper.from_array(values.astype(np.float32), wide.name))
    assert len(halves_of(model)) == len(before) - 1


def optimized(folder: Path, budget: Budget) -> Run:
    folder.mkdir()
    return optimize(demo_project(Effort.FAST, budget), base=small_demo(folder), output=folder / "run")


@pytest.mark.slow
def test_a_size_that_only_floats_of_half_the_width_can_keep_without_a_flip_is_kept(tmp_path: Path) -> None:
    """Integers flip some of the 120 answers; fp32 is too large; fp16 is neither."""
    run = optimized(tmp_path / "half", Budget(size_mib=0.4, flip_rate=0.0))
    size = run.reference.size_mib
    assert size is not None
    assert size > 0.4
    half = next(each for each in run.candidates if each.name == "fp16 folded")
    assert half.size_mib is not None
    assert half.size_mib < 0.55 * size
    assert run.chosen is not None
    assert run.chosen.flip_rate == 0.0
    assert Format.FP16 in {each.format for each in run.chosen.recipe.regions}


@pytest.mark.slow
def test_where_fp32_is_small_enough_nothing_is_stored_as_fp16(tmp_path: Path) -> None:
    run = optimized(tmp_path / "whole", Budget(size_mib=64.0))
    assert "fp32 folded" in {each.name for each in run.candidates}
    assert all(region.format is not Format.FP16 for each in run.candidates for region in each.recipe.regions)
