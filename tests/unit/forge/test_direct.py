"""What the fast effort looks at, which corrections are tried, and what candidates are judged on."""

from __future__ import annotations

from pathlib import Path

import msgspec
import onnx
import pytest

from edgewise.contracts.project import Effort
from edgewise.contracts.recipe import Format, Recipe, Rounding
from edgewise.forge.graph import Graph
from edgewise.forge.importing.sandbox import importing
from edgewise.forge.judge import Judgement
from edgewise.forge.prepare import Limits, Prepared, prepare
from edgewise.forge.regions import regions_of
from edgewise.forge.search.bench import Trial
from edgewise.forge.search.options import Style, direct
from edgewise.forge.search.strategy import better_styles, styles_of
from tests.unit.forge.children import demo_project, small_demo
from tests.unit.forge.nets import conv_chain, products


def directly(model: onnx.ModelProto) -> set[tuple[Format, ...]]:
    graph = Graph(model)
    regions = regions_of(graph)
    offers = {region.name: tuple(form for form in region.formats if form is not Format.FP32) for region in regions}
    return set(direct(graph, regions, offers).values())


def test_convolutions_are_looked_at_in_static_int8_and_products_in_dynamic() -> None:
    assert directly(conv_chain(0, 3)) == {(Format.INT8_STATIC,)}
    assert directly(products()) == {(Format.INT8_DYNAMIC,)}


def test_where_no_integers_are_offered_everything_stays_on_offer() -> None:
    graph = Graph(products())
    regions = regions_of(graph)
    offers = {region.name: (Format.INT8_WEIGHT,) for region in regions if region.weight is not None}
    assert offers
    assert direct(graph, regions, offers) == offers


def trial(divergence: float) -> Trial:
    judgement = Judgement(
        samples=1,
        divergence=divergence,
        sqnr_db=None,
        cosine=None,
        score=None,
        metrics={},
        flip_rate=None,
        flipped=(),
    )
    return Trial(recipe=Recipe(name="any", regions=()), judgement=judgement)


def test_the_style_that_did_best_on_all_placements_together_is_kept_if_it_beat_the_first() -> None:
    styles = styles_of(Style(), corrected=True)[1:]
    assert [label for label, _ in styles] == ["gptq bc", "bc"]
    found = [trial(each) for each in (0.1, 0.2, 0.5, 0.3)]  # placement by placement: 0.6 against 0.5
    assert [label for label, _ in better_styles(styles, found, than=0.55)] == ["bc"]
    assert better_styles(styles, found, than=0.5) == []
    assert better_styles([], [], than=0.5) == []


def test_the_direct_style_is_rounding_alone() -> None:
    ((label, style),) = styles_of(Style(), corrected=True, direct=True)
    assert (label, style.rounding, style.bias_correction) == ("gptq", Rounding.GPTQ, False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_demo(tmp_path_factory.mktemp("demo"))  # a pool of 40: 12 set aside, 28 to calibrate with


def prepared(place: Path, work: Path, *, judged: int, select: str | None = None) -> Prepared:
    project = demo_project(Effort.DEFAULT)
    if select is not None:
        project = msgspec.structs.replace(project, task=msgspec.structs.replace(project.task, select=select))
    model = project.model
    with importing(model.path, base=place, inputs=model.inputs, work=work) as imported:
        return prepare(project, base=place, imported=imported, limits=Limits(select=256, judged=judged, test=50))


def test_a_small_select_split_is_filled_up_from_the_pool(place: Path, tmp_path: Path) -> None:
    few = prepared(place, tmp_path, judged=12)
    assert few.judged.indices == few.select.indices
    more = prepared(place, tmp_path, judged=30)
    assert more.select.indices == few.select.indices
    assert more.judged.indices[:12] == more.select.indices
    assert len(set(more.judged.indices)) == 30
    assert set(more.judged.indices[12:]) <= set(more.calibrate.indices)
    assert more.test is not None
    assert len(more.test) == 50


def test_a_select_split_of_the_users_own_is_judged_on_alone(place: Path, tmp_path: Path) -> None:
    own = prepared(place, tmp_path, judged=1000, select="test.npz")
    assert own.judged.indices == own.select.indices
    assert len(own.select) == 120
