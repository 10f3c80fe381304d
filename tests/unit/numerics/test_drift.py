from __future__ import annotations

import numpy as np
import pytest

from edgewise.numerics.drift import holm, stability_index


def test_the_stability_index_is_that_of_the_shares() -> None:
    reference = np.repeat([0.0, 1.0], 500)
    other = np.repeat([0.0, 1.0], [250, 750])
    p, q = 500.5 / 1001, np.array([250.5, 750.5]) / 1001
    assert stability_index(reference, other) == pytest.approx(float(np.sum((q - p) * np.log(q / p))))
    assert stability_index(reference, reference) == 0
    with pytest.raises(ValueError, match="no values"):
        stability_index([], [1.0])


def test_holm_corrects_step_by_step() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []
