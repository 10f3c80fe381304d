from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.contracts.recipe import Format
from edgewise.forge.placement import (
    Border,
    Costs,
    Placement,
    crossings,
    cut,
    milp,
    noise_of,
    predicted_us,
    regions_us,
)
from edgewise.forge.regions import Kind, Region
from tests.unit.forge.nets import Workshop, conv_chain

STATIC, DYNAMIC, FP32 = Format.INT8_STATIC, Format.INT8_DYNAMIC, Format.FP32
Problem = tuple[tuple[Region, ...], Costs, tuple[str, ...]]
KINDS = (Kind.CONV, Kind.CONV, Kind.ELEMENTWISE, Kind.PASS, Kind.MATMUL, Kind.FLOAT)


@st.composite
def problems(draw: st.DrawFn, forms: tuple[Format, ...] = (STATIC,), most: int = 6) -> Problem:
    """A random DAG of regions: each reads one or two earlier tensors; the last, and maybe others, are outputs."""
    numbers = st.integers(0, 40).map(lambda value: value / 2)
    regions: list[Region] = []
    time: dict[str, dict[Format, float]] = {}
    noise: dict[str, dict[Format, float]] = {}
    for index in range(draw(st.integers(1, most))):
        earlier = ["x", *(each.output for each in regions)]
        kind = draw(st.sampled_from(KINDS))
        inputs = draw(st.lists(st.sampled_from(earlier), min_size=1, max_size=2, unique=True))
        name = f"r{index}"
        regions.append(
            Region(name=name, kind=kind, op="", nodes=(index,), inputs=tuple(inputs), output=name, raw_output=name)
        )
        offered = () if kind is Kind.FLOAT else draw(st.lists(st.sampled_from(forms), unique=True))
        time[name] = {FP32: draw(numbers)} | {form: draw(numbers) for form in offered}
        noise[name] = {form: draw(numbers) for form in offered}
    border = st.builds(Border, quantize_us=numbers, dequantize_us=numbers)
    borders = {name: draw(border) for name in ("x", *(each.output for each in regions))}
    others = draw(st.lists(st.sampled_from([each.output for each in regions]), unique=True))
    outputs = tuple(dict.fromkeys([*others, regions[-1].output]))
    return tuple(regions), Costs(time_us=time, noise=noise, borders=borders), outputs


def everything(regions: tuple[Region, ...], costs: Costs) -> Iterator[Placement]:
    names = [each.name for each in regions]
    for forms in itertools.product(*(costs.time_us[name] for name in names)):
        yield dict(zip(names, forms, strict=True))


def objective(problem: Problem, placement: Placement, weight: float) -> float:
    regions, costs, outputs = problem
    return predicted_us(regions, costs, placement, outputs) + weight * noise_of(costs, placement)


def best(problem: Problem, weight: float) -> float:
    regions, costs, _ = problem
    return min(objective(problem, each, weight) for each in everything(regions, costs))


WEIGHTS = st.sampled_from([0.0, 0.25, 1.0, 4.0])


@settings(max_examples=300, deadline=None)
@given(problems(), WEIGHTS)
def test_the_cut_is_as_good_as_any_placement(problem: Problem, weight: float) -> None:
    found = cut(*problem, integer=STATIC, weight=weight)
    assert objective(problem, found, weight) == pytest.approx(best(problem, weight), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(problems(), WEIGHTS)
def test_the_milp_agrees_with_the_cut_on_two_formats(problem: Problem, weight: float) -> None:
    by_cut = objective(problem, cut(*problem, integer=STATIC, weight=weight), weight)
    assert objective(problem, milp(*problem, weight=weight), weight) == pytest.approx(by_cut, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(problems(forms=(STATIC, DYNAMIC), most=5), WEIGHTS)
def test_the_milp_is_as_good_as_any_placement_of_three_formats(problem: Problem, weight: float) -> None:
    found = milp(*problem, weight=weight)
    assert objective(problem, found, weight) == pytest.approx(best(problem, weight), abs=1e-5)


@settings(max_examples=100, deadline=None)
@given(problems(forms=(STATIC, DYNAMIC)), st.randoms(use_true_random=False))
def test_the_prediction_is_regions_and_borders_and_nothing_else(problem: Problem, chance: random.Random) -> None:
    regions, costs, outputs = problem
    placement = {name: chance.choice(list(times)) for name, times in costs.time_us.items()}
    quantized, dequantized = crossings(regions, placement, outputs)
    borders = sum(costs.borders[name].quantize_us for name in quantized)
    borders += sum(costs.borders[name].dequantize_us for name in dequantized)
    total = predicted_us(regions, costs, placement, outputs)
    assert total == pytest.approx(regions_us(regions, costs, placement) + borders)
    assert len(set(quantized)) == len(quantized)
    assert len(set(dequantized)) == len(dequantized)
    assert crossings(regions, dict.fromkeys(costs.time_us, FP32), outputs) == ((), ())


@settings(max_examples=60, deadline=None)
@given(problems())
def test_noise_never_grows_with_its_price(problem: Problem) -> None:
    _, costs, _ = problem
    noises = [noise_of(costs, cut(*problem, integer=STATIC, weight=weight)) for weight in (0, 0.1, 0.5, 1, 3, 10, 100)]
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(noises))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.data())
def test_borders_are_where_lowering_writes_them(seed: int, length: int, data: st.DataObject) -> None:
    shop = Workshop(conv_chain(seed, length), samples=2)
    static = [each.name for each in shop.regions if STATIC in each.formats]
    placement = dict.fromkeys(data.draw(st.lists(st.sampled_from(static), unique=True)), STATIC)
    quantized, dequantized = crossings(shop.regions, placement, shop.graph.outputs)
    nodes = shop.build(placement).graph.node
    tensors = {name for node in shop.graph.nodes for name in node.output} | set(shop.graph.inputs)
    assert sorted(quantized) == sorted(
        node.input[0] for node in nodes if node.op_type == "QuantizeLinear" and node.input[0] in tensors
    )
    assert sorted(dequantized) == sorted(
        node.output[0] for node in nodes if node.op_type == "DequantizeLinear" and node.output[0] in tensors
    )


def test_a_tensor_with_many_readers_pays_its_border_once() -> None:
    def region(name: str, source: str) -> Region:
        return Region(name=name, kind=Kind.CONV, op="Conv", nodes=(0,), inputs=(source,), output=name, raw_output=name)

    regions = tuple(region(f"r{at}", "x") for at in range(4))
    costs = Costs(
        time_us={each.name: {FP32: 3.0, STATIC: 1.0} for each in regions},
        noise={},
        borders={"x": Border(quantize_us=5.0, dequantize_us=5.0)},
    )
    # 4 * 2 us saved pay one border of 5 us, not four.
    found = cut(regions, costs, (), integer=STATIC, weight=0.0)
    assert set(found.values()) == {STATIC}
    assert predicted_us(regions, costs, found, ()) == 9.0
    assert set(milp(regions, costs, (), weight=0.0).values()) == {STATIC}


def test_nothing_to_place_is_no_error() -> None:
    region = Region(name="r", kind=Kind.FLOAT, op="", nodes=(0,), inputs=(), output="r", raw_output="r")
    costs = Costs(time_us={"r": {FP32: 1.0}}, noise={}, borders={})
    assert cut((region,), costs, ("r",), integer=STATIC, weight=1.0) == {}
    assert milp((region,), costs, ("r",), weight=1.0) == {"r": FP32}
