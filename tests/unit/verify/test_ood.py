"""Out of distribution: the scores by their definitions, and the suite on variants that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from scipy.spatial.distance import mahalanobis as independent
from scipy.special import logsumexp

from edgewise.contracts.target import RuntimeName
from edgewise.contracts.verification import Grade, Section
from edgewise.forge.graph import Graph
from edgewise.forge.progress import Silent
from edgewise.forge.verify import ood_scores
from edgewise.forge.verify.exposed import expose, last_tensors
from edgewise.forge.verify.ood import judged, ood
from edgewise.forge.verify.ood_data import KINDS
from edgewise.runtimes import runtime
from tests.unit.verify.paired_subjects import coarse, subject_of

DRAW = np.random.default_rng(5)
INSIDE, OUTSIDE = DRAW.normal(1, 1, 300), DRAW.normal(0, 1, 200)


def grades(section: Section, name: str) -> dict[str, Grade]:
    return {each.subject: each.grade for each in section.findings if each.name == name}


def test_energy_is_the_logarithm_of_the_summed_exponentials() -> None:
    logits = DRAW.normal(0, 300, (20, 7))
    np.testing.assert_allclose(ood_scores.energy(logits), logsumexp(logits, axis=1), rtol=1e-12)


def test_the_cutoff_keeps_what_it_says_and_no_more_than_needed() -> None:
    (found,) = ood_scores.cutoffs({"energy": INSIDE})
    assert (found.cutoff <= INSIDE).mean() >= found.keep
    assert (found.cutoff < INSIDE).mean() < found.keep


def test_mahalanobis_is_the_distance_to_the_nearest_class() -> None:
    labels = np.repeat(np.arange(3), 200)
    features = DRAW.normal(size=(600, 4)) + labels[:, None] * 5
    fitted = ood_scores.fit_gaussians(features, labels)
    far = [min(independent(x, mean, fitted.precision) ** 2 for mean in fitted.means) for x in features[:10]]
    np.testing.assert_allclose(-ood_scores.mahalanobis(features[:10], fitted), far, rtol=1e-9)
    assert fitted.means.shape == (3, 4)
    np.testing.assert_allclose(fitted.precision, np.eye(4), atol=0.25)


def test_with_few_samples_there_is_one_mean_and_an_inverse() -> None:
    fitted = ood_scores.fit_gaussians(DRAW.normal(size=(20, 50)), np.arange(20))
    assert fitted.means.shape == (1, 50)
    assert np.isfinite(fitted.precision).all()


def test_the_logits_before_a_softmax_and_the_features_before_the_last_layer_are_exposed(tmp_path: Path) -> None:
    weight = DRAW.normal(size=(6, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Relu", ["x"], ["features"]),
        helper.make_node("MatMul", ["features", "w"], ["product"]),
        helper.make_node("Softmax", ["product"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, [1, 6])],
        [helper.make_tensor_value_info("y", 1, [1, 3])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    assert last_tensors(Graph(model)) == ("product", "features")
    onnx.save(model, tmp_path / "m.onnx")
    found = expose(tmp_path / "m.onnx", runtime(RuntimeName.ONNXRUNTIME), threads=1)
    assert found is not None
    assert found.features is not None
    x = DRAW.normal(size=(1, 6)).astype(np.float32)
    outputs = found.session.run({"x": x})
    np.testing.assert_allclose(outputs[found.features], np.maximum(x, 0), rtol=1e-6)
    np.testing.assert_allclose(outputs[found.logits], np.maximum(x, 0) @ weight, rtol=1e-5)


def test_fp32_against_itself_changes_nothing(data: Path) -> None:
    section = ood(subject_of(data, data / "model.onnx", seconds=0.2), Silent())
    assert set(grades(section, "ood.auroc").values()) == {Grade.PASS}
    for each in section.findings:
        if each.name in {"ood.auroc", "ood.cutoff", "ood.fpr95"}:
            assert each.value == each.reference


def test_every_score_brings_a_cutoff_for_the_calibration(data: Path, tmp_path: Path) -> None:
    section = ood(subject_of(data, coarse(data / "model.onnx", tmp_path, bits=4), seconds=0.2), Silent())
    cut = {each.subject: each for each in section.findings if each.name == "ood.cutoff"}
    assert set(cut) == {"energy", "max_logit", "mahalanobis"}
    assert all(each.limit == 0.95 and each.value is not None for each in cut.values())
    assert cut["energy"].value != cut["energy"].reference, "fitted on the variant's own scores"


def test_a_variant_whose_scores_collapse_is_failed(data: Path, tmp_path: Path) -> None:
    section = ood(subject_of(data, coarse(data / "model.onnx", tmp_path, bits=2), seconds=0.2), Silent())
    assert Grade.FAIL in grades(section, "ood.auroc").values()


@pytest.mark.parametrize(
    ("apart", "lost", "grade"),
    [(2.0, 0.0, Grade.PASS), (2.0, 0.03, Grade.PASS), (2.0, 0.3, Grade.FLAG), (2.0, 1.0, Grade.FAIL),
     (0.1, 0.6, Grade.NOTED)],
)  # fmt: skip
def test_a_drop_counts_where_fp32_tells_them_apart_and_it_changes_a_decision(
    apart: float, lost: float, grade: Grade
) -> None:
    """Of two normal laws `apart` deviations, a drop of `lost` deviations: AUROC 0.92 falls by 0.004, 0.04 and 0.16."""
    draw = np.random.default_rng(0)
    scores = {kind: draw.normal(size=4000) for kind in ("", *KINDS)}
    inside = {"": {"energy": scores[""] + apart}} | {kind: {"energy": scores[kind]} for kind in KINDS}
    after = inside | {"": {"energy": scores[""] + apart - lost}}
    assert judged("energy", inside, after, np.random.default_rng(1))[0].grade is grade
