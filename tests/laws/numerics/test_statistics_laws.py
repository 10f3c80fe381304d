"""What verification is judged by agrees with scipy and scikit-learn to 1e-9, on any input, ties among them."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score, roc_curve

from edgewise.forge.verify.ood_scores import false_positives
from edgewise.numerics import calibration_error as calibration
from edgewise.numerics.bootstrap import bca_interval, percentile_interval
from edgewise.numerics.contingency import chi_squared, chi_squared_tail, fisher_greater
from edgewise.numerics.statistics import auroc, mcnemar, ranks, share_interval, softmax, spearman

Floats = NDArray[np.float64]
SEED = st.integers(0, 2**32 - 1)
COUNT = st.integers(0, 400)


def close(expected: float) -> object:
    return pytest.approx(expected, rel=1e-9, abs=1e-12)


def drawn(size: int, seed: int, values: int) -> Floats:
    """Return values of a heavy tail, or so few different ones that ties are frequent; `values` 0 is the former."""
    draw = np.random.default_rng(seed)
    return np.asarray(draw.integers(values, size=size) if values else draw.standard_t(2, size), np.float64)


def samples(least: int = 1, most: int = 60) -> st.SearchStrategy[Floats]:
    return st.builds(drawn, st.integers(least, most), SEED, st.sampled_from((0, 0, 2, 4, 9)))


@given(only_first=COUNT, only_second=COUNT)
def test_mcnemar(only_first: int, only_second: int) -> None:
    discordant = only_first + only_second
    expected = stats.binomtest(only_first, discordant).pvalue if discordant else 1.0
    assert mcnemar(only_first, only_second) == pytest.approx(expected, rel=1e-9)


@given(hits=COUNT, misses=COUNT, level=st.floats(0.5, 0.999))
def test_wilson(hits: int, misses: int, level: float) -> None:
    assume(hits + misses > 0)
    expected = stats.binomtest(hits, hits + misses).proportion_ci(level, method="wilson")
    found = share_interval(hits, hits + misses, level=level)
    assert (found.low, found.high) == (close(expected.low), close(expected.high))


@settings(max_examples=30)
@given(sample=samples(least=4, most=150), seed=SEED, level=st.floats(0.5, 0.99))
def test_both_bootstraps_of_the_same_draws(sample: Floats, seed: int, level: float) -> None:
    """A generator of one seed draws the same resamples for both, so that nothing but arithmetic may differ."""
    assume(sample.std() > 1e-6 * np.abs(sample).max())  # scipy has no interval where nothing varies
    methods: tuple[Literal["percentile", "BCa"], ...] = ("percentile", "BCa")
    for method in methods:
        interval = percentile_interval if method == "percentile" else bca_interval
        expected = stats.bootstrap(
            (sample,), np.mean, method=method, n_resamples=200, confidence_level=level, rng=np.random.default_rng(seed)
        ).confidence_interval
        found = interval(
            lambda drawn: float(np.mean(sample[drawn])),
            len(sample),
            generator=np.random.default_rng(seed),
            resamples=200,
            level=level,
        )
        assert found is not None
        scale = float(np.ptp(sample))
        assert found.low == pytest.approx(expected.low, rel=1e-9, abs=1e-9 * scale)
        assert found.high == pytest.approx(expected.high, rel=1e-9, abs=1e-9 * scale)


@given(size=st.integers(2, 60), seeds=st.tuples(SEED, SEED), values=st.tuples(*[st.sampled_from((0, 2, 4, 9))] * 2))
def test_spearman(size: int, seeds: tuple[int, int], values: tuple[int, int]) -> None:
    x, y = (drawn(size, *each) for each in zip(seeds, values, strict=True))
    np.testing.assert_array_equal(ranks(x), stats.rankdata(x))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert np.isnan(spearman(x, y))
    else:
        assert spearman(x, y) == close(float(stats.spearmanr(x, y).statistic))


@given(inside=samples(), outside=samples())
def test_auroc_and_false_positives(inside: Floats, outside: Floats) -> None:
    labels, scores = np.repeat([1, 0], [len(inside), len(outside)]), np.concatenate([inside, outside])
    assert auroc(inside, outside) == close(roc_auc_score(labels, scores))
    passed, kept, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert false_positives(inside, outside) == close(passed[np.argmax(kept >= 0.95 - 1e-12)])


@given(
    confidence=st.lists(st.one_of(st.integers(0, 30).map(lambda k: k / 30), st.floats(0, 1)), min_size=2, max_size=80),
    seed=SEED,
)
def test_the_calibration_error(confidence: list[float], seed: int) -> None:
    """Multiples of 1/30 lie on the edges of the 15 bins, or in the middle of one."""
    sure = np.array(confidence)
    right = np.random.default_rng(seed).random(len(sure)) < sure
    assume(0 < right.sum() < len(right))  # scikit-learn wants both
    share, mean = calibration_curve(right, sure, n_bins=calibration.BINS, strategy="uniform")
    table = calibration.reliability(sure, right)
    known = table[table[:, 0] > 0]
    assert known[:, 1] == pytest.approx(mean, rel=1e-9, abs=1e-12)
    assert known[:, 2] == pytest.approx(share, rel=1e-9, abs=1e-12)
    error = float(known[:, 0] @ np.abs(share - mean)) / len(sure)
    assert calibration.expected_calibration_error(sure, right) == close(error)


@given(seed=SEED, size=st.integers(1, 60), classes=st.integers(2, 12), heat=st.floats(0.1, 4))
def test_proper_scores(seed: int, size: int, classes: int, heat: float) -> None:
    draw = np.random.default_rng(seed)
    p, labels = softmax(draw.normal(size=(size, classes)) * heat), draw.integers(0, classes, size)
    known = list(range(classes))
    assert calibration.negative_log_likelihood(p, labels) == close(log_loss(labels, p, labels=known))
    assert calibration.brier(p, labels) == close(brier_score_loss(labels, p, labels=known, scale_by_half=False))


@given(rows=st.integers(2, 12), columns=st.integers(2, 5), most=st.sampled_from((3, 20, 300)), seed=SEED)
def test_chi_squared(rows: int, columns: int, most: int, seed: int) -> None:
    table = np.random.default_rng(seed).integers(0, most, (rows, columns))
    assume((table.sum(0) > 0).all() and (table.sum(1) > 0).all())  # scipy refuses what ours leaves out
    expected = stats.chi2_contingency(table, correction=False)
    found = chi_squared(table)
    assert found.freedom == expected.dof
    assert found.least == close(float(expected.expected_freq.min()))
    assert found.statistic == close(float(expected.statistic))
    assert found.p == pytest.approx(float(expected.pvalue), rel=1e-9, abs=1e-300)


@given(statistic=st.floats(0, 3000), freedom=st.integers(1, 2000))
def test_the_tail_of_chi_squared(statistic: float, freedom: int) -> None:
    expected = float(stats.chi2.sf(statistic, freedom))
    assert chi_squared_tail(statistic, freedom) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@given(counts=st.tuples(COUNT, COUNT, COUNT, COUNT))
def test_fisher(counts: tuple[int, int, int, int]) -> None:
    hits, misses, others, rest = counts
    expected = float(stats.fisher_exact(np.array([[hits, misses], [others, rest]]), alternative="greater").pvalue)
    assert fisher_greater(hits, hits + misses, others, others + rest) == pytest.approx(expected, rel=1e-9, abs=1e-12)
