from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgewise.forge.tasks.base import Array, Task
from edgewise.forge.tasks.divergence import kl_rows, normalised_error
from edgewise.forge.tasks.generic import Generic
from edgewise.numerics.probabilities import are_probabilities

VALUES = hnp.arrays(np.float32, hnp.array_shapes(max_dims=4, max_side=5), elements=st.floats(-1e3, 1e3, width=32))


def test_probabilities_are_told_from_logits() -> None:
    assert are_probabilities(np.array([[0.25, 0.75], [1, 0]]))
    assert not are_probabilities(np.array([[0.25, 0.75], [1.2, -0.2]]))
    assert not are_probabilities(np.array([[0.25, 0.70]]))


def test_every_row_has_its_own_kl() -> None:
    reference = np.log(np.array([[[0.5, 0.5], [0.9, 0.1]]]))
    candidate = np.log(np.array([[[0.5, 0.5], [0.5, 0.5]]]))
    assert kl_rows(reference, candidate) == pytest.approx(np.array([[0, 0.9 * np.log(1.8) + 0.1 * np.log(0.2)]]))


def test_other_shapes_are_infinitely_far() -> None:
    assert np.isinf(kl_rows(np.zeros((1, 3)), np.zeros((1, 4)))).all()
    assert normalised_error(np.zeros((1, 3)), np.zeros((1, 4))) == np.inf


def test_columns_of_different_units_count_alike() -> None:
    generator = np.random.default_rng(0)
    reference = generator.normal(size=(1, 500, 2))
    noise = generator.normal(size=(1, 500, 2)) * 0.1
    scaled = np.array([1.0, 1e4])
    assert normalised_error(reference * scaled, (reference + noise) * scaled) == pytest.approx(
        normalised_error(reference, reference + noise)
    )


def test_a_column_that_is_almost_constant_does_not_outweigh_the_others() -> None:
    reference = np.random.default_rng(0).normal(size=(1, 100, 2)) * [1, 1e-9]
    candidate = reference + np.array([0, 1e-3])
    assert normalised_error(reference, candidate) <= 0.5


def test_integers_are_compared_by_the_share_that_differs() -> None:
    assert normalised_error(np.array([[1, 2, 3, 4]]), np.array([[1, 2, 0, 0]])) == 0.5


def test_generic_averages_over_outputs_and_keeps_nothing() -> None:
    task: Task = Generic()
    one, two = np.array([[1, 2]]), np.array([[1, 3]])
    assert task.divergence((one, one), (one, two)) == 0.25
    assert task.predict((one,), {}) is None
    assert task.score([None], [1]) is None
    assert task.flips([None], [None]) is None
    assert task.divergence((np.zeros((1, 0)),), (np.zeros((1, 0)),)) == 0


@given(VALUES)
def test_equal_outputs_do_not_differ(values: Array) -> None:
    assert Generic().divergence((values,), (values.copy(),)) == 0


@given(VALUES, st.floats(0.01, 10))
def test_any_change_counts_between_none_and_all(values: Array, step: float) -> None:
    assert 0 < normalised_error(values, values + np.float32(step) * (1 + np.abs(values))) <= 1
