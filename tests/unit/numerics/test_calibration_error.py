"""Calibration figures, against scikit-learn and definitions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from edgewise.numerics.calibration_error import (
    area_under_risk_coverage,
    conformal_threshold,
    expected_calibration_error,
    fit_temperature,
    risk_coverage,
)
from edgewise.numerics.statistics import log_softmax, softmax

Floats = NDArray[np.float64]


def beliefs(seed: int, *, samples: int = 500, classes: int = 7) -> tuple[Floats, NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    logits = random.normal(size=(samples, classes)) * 2.5
    labels = np.array([random.choice(classes, p=row) for row in softmax(logits / 1.7)])
    return logits, labels


def test_certainty_that_is_always_right_is_calibrated_and_always_wrong_is_not() -> None:
    assert expected_calibration_error(np.ones(9), np.ones(9)) == 0
    assert expected_calibration_error(np.ones(9), np.zeros(9)) == 1


@pytest.mark.parametrize("seed", range(5))
def test_the_temperature_is_the_optimum(seed: int) -> None:
    logits, labels = beliefs(seed, samples=300)

    def loss(temperature: float) -> float:
        return float(-log_softmax(logits / temperature)[np.arange(300), labels].mean())

    best = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-10})
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(best.x, rel=1e-5)
    assert loss(found) <= best.fun + 1e-12


def test_a_temperature_without_an_optimum_stays_within_its_bounds() -> None:
    logits = np.eye(4) * 3
    assert fit_temperature(logits, np.arange(4)) == pytest.approx(0.05, rel=1e-2)
    assert fit_temperature(logits, (np.arange(4) + 1) % 4) == pytest.approx(20, rel=1e-2)


def test_risk_and_coverage_by_hand() -> None:
    coverage, risk = risk_coverage([0.9, 0.8, 0.7, 0.6], [True, False, True, False])
    assert coverage == pytest.approx([0.25, 0.5, 0.75, 1])
    assert risk == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert area_under_risk_coverage([0.9, 0.8, 0.7, 0.6], [True, False, True, False]) == pytest.approx(1 / 3)


def test_equal_confidence_has_no_order() -> None:
    same = np.full(4, 0.5)
    first = risk_coverage(same, [True, True, False, False])[1]
    assert first == pytest.approx(risk_coverage(same, [False, True, False, True])[1])
    assert first == pytest.approx(np.full(4, 0.5))


def test_conformal_sets_cover_as_promised() -> None:
    covered = []
    for seed in range(200):
        logits, labels = beliefs(seed, samples=240, classes=5)
        p = softmax(logits)
        threshold = conformal_threshold(p[:120], labels[:120], coverage=0.9)
        covered.append((1 - p[120:][np.arange(120), labels[120:]] <= threshold).mean())
    assert np.mean(covered) + 0.005 >= 0.9
    assert np.mean(covered) < 0.92


def test_too_few_samples_take_every_class() -> None:
    assert conformal_threshold(np.full((5, 2), 0.5), np.zeros(5, int), coverage=0.9) == 1
