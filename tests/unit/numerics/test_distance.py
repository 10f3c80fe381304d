"""Distances against scipy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import rel_entr

from edgewise.numerics.distance import SqnrAccumulator, cosine, kl_divergence, normalised_mse, sqnr_db
from edgewise.numerics.statistics import softmax


def test_sqnr_by_hand() -> None:
    assert sqnr_db([10.0, 0.0], [9.0, 0.0]) == pytest.approx(20.0)
    assert sqnr_db([1.0, 2.0], [1.0, 2.0]) == math.inf
    assert sqnr_db([0.0], [0.0]) == math.inf
    assert sqnr_db([0.0], [1.0]) == -math.inf
    assert math.isnan(sqnr_db([1.0], [math.nan]))
    # 1 ulp of float32 in one of many is still seen.
    r = np.ones(1000, np.float32)
    c = r.copy()
    c[0] = np.nextafter(c[0], np.float32(2))
    assert sqnr_db(r, c) == pytest.approx(10 * math.log10(1000 / 2.0**-46))


def test_sqnr_of_a_stream_is_that_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    r, c = rng.normal(size=(2, 6, 10))
    stream, rest = SqnrAccumulator(), SqnrAccumulator()
    stream.update(r[:2], c[:2])
    stream.update(r[2:3], c[2:3])
    rest.update(r[3:], c[3:])
    assert stream.merge(rest).db == pytest.approx(sqnr_db(r, c))
    assert SqnrAccumulator().db == math.inf


def test_cosine() -> None:
    assert cosine([1.0, 0.0], [1.0, 1.0]) == pytest.approx(math.sqrt(0.5))
    assert cosine([0.0, 0.0], [0.0, 0.0]) == 1.0
    assert cosine([0.0, 0.0], [0.0, 1.0]) == 0.0
    rows = cosine([[1.0, 2.0], [0.0, 0.0]], [[-2.0, -4.0], [0.0, 0.0]], axis=-1)
    assert rows.tolist() == pytest.approx([-1.0, 1.0])


def test_kl_is_scipys() -> None:
    r, c = np.random.default_rng(0).normal(size=(2, 8, 5)) * 5
    expected = rel_entr(softmax(r), softmax(c)).sum(axis=-1).mean()
    assert kl_divergence(r, c) == pytest.approx(expected)
    assert kl_divergence(softmax(r), softmax(c), logits=False) == pytest.approx(expected)
    assert kl_divergence(r, r + 1000.0) == pytest.approx(0.0, abs=1e-9)
    assert kl_divergence([[1.0, 0.0]], [[1.0, 0.0]], logits=False) == 0.0
    assert math.isfinite(kl_divergence([[0.5, 0.5]], [[1.0, 0.0]], logits=False))


def test_normalised_mse() -> None:
    rng = np.random.default_rng(0)
    r = rng.normal(size=(3, 400, 2)) * [1.0, 1000.0]
    c = r + rng.normal(size=r.shape) * [0.1, 100.0]
    np.testing.assert_allclose(normalised_mse(r, c), [0.01, 0.01], rtol=0.15)
    # An offset does not hide the error: the variance counts, not the square.
    np.testing.assert_allclose(normalised_mse(r + 1e4, c + 1e4), normalised_mse(r, c))
    assert normalised_mse([[2.0, 0.0, 0.0]] * 3, [[1.0, 0.0, 2.0]] * 3).tolist() == [0.25, 0.0, 4.0]


def test_shapes_must_agree() -> None:
    for distance in (sqnr_db, cosine, kl_divergence, normalised_mse):
        with pytest.raises(ValueError, match="differ"):
            distance(np.zeros((2, 2)), np.zeros(2))
