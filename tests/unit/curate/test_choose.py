from __future__ import annotations

import numpy as np
import pytest

from edgewise.contracts.curation import Method
from edgewise.errors import DataError
from edgewise.forge.curate.choose import choose, compare, coverage, elements
from edgewise.forge.curate.observe import MOST_CHANNELS, Observed, grouped, observe
from edgewise.runtimes.onnxruntime_ import OnnxRuntime
from tests.unit.forge.nets import Arrays, Workshop, products, residual

CHANNELS, RARE = 40, 20


def planted(*, samples: int = 400, seed: int = 0) -> Observed:
    """A pool in which each of the first channels is driven ten times as far by one sample only."""
    random = np.random.default_rng(seed)
    peaks = random.uniform(0.8, 1.2, (samples, CHANNELS)).astype(np.float32)
    peaks[random.permutation(samples)[:RARE], np.arange(RARE)] = 10.0
    return Observed(
        indices=tuple(range(samples)),
        tensors=("a",) * CHANNELS,
        channels=tuple(range(CHANNELS)),
        peaks=peaks,
        lows=-peaks.max(axis=1, keepdims=True),
        highs=peaks.max(axis=1, keepdims=True),
    )


def test_set_cover_finds_the_planted_channels_that_random_misses() -> None:
    seen = planted()
    found = elements(seen)
    assert found.columns.tolist() == list(range(RARE))
    assert coverage(found, choose(seen, RARE, method=Method.COVER, seed=0)) == pytest.approx(1.0)
    random = [coverage(found, choose(seen, RARE, method=Method.RANDOM, seed=seed)) for seed in range(5)]
    assert max(random) < 0.5


def test_the_comparison_shows_coverage_and_the_spread_over_seeds() -> None:
    qualities = {each.method: each for each in compare(planted(), RARE, seed=0)}
    cover, random = qualities[Method.COVER], qualities[Method.RANDOM]
    assert cover.coverage > 0.7
    assert random.coverage < 0.3
    assert cover.coverage_low <= cover.coverage <= cover.coverage_high
    assert cover.range_share == 1.0
    assert cover.range_spread == 0.0


@pytest.mark.parametrize("method", Method)
def test_a_choice_has_no_sample_twice_and_is_the_same_for_a_seed(method: Method) -> None:
    seen = planted()
    rows = choose(seen, 150, method=method, seed=3)
    assert len(set(rows)) == 150
    assert rows == choose(seen, 150, method=method, seed=3)
    assert set(choose(seen, 30, method=method, seed=3, among=range(50, 90))) <= set(range(50, 90))
    assert len(choose(seen, 30, method=method, seed=3, among=range(5))) == 5


def test_without_outliers_nothing_is_to_be_covered() -> None:
    flat = planted()
    found = elements(
        Observed(
            **{each: getattr(flat, each) for each in flat.__struct_fields__ if each != "peaks"},
            peaks=np.ones_like(flat.peaks),
        )
    )
    assert found.columns.size == 0
    assert coverage(found, [0]) == 1.0


def test_a_pass_sees_the_channel_that_one_sample_drives() -> None:
    shop = Workshop(residual())
    feeds = [shop.data[at].feeds for at in range(4)]
    feeds[2] = {"x": feeds[2]["x"] * np.array([1, 30, 1], np.float32).reshape(1, 3, 1, 1)}
    seen = observe(shop.graph, shop.regions, Arrays(feeds), [0, 1, 2, 3], runtime=OnnxRuntime(), threads=1)
    assert seen.indices == (0, 1, 2, 3)
    columns = [at for at, name in enumerate(seen.tensors) if name == "x"]
    assert [seen.channels[at] for at in columns] == [0, 1, 2]
    assert np.allclose(seen.peaks[2, columns], [np.abs(feeds[2]["x"][0, at]).max() for at in range(3)])
    assert seen.peaks[:, columns[1]].argmax() == 2
    assert seen.highs[2, seen.names.index("x")] == feeds[2]["x"].max()


def test_products_have_their_channels_last_and_pairs_are_one_row() -> None:
    shop = Workshop(products(features=16), samples=4)
    seen = observe(shop.graph, shop.regions, shop.data, range(4), runtime=OnnxRuntime(), threads=1)
    assert seen.tensors.count("x") == 16
    pairs = grouped(seen, 2)
    assert pairs.indices == (0, 2)
    assert np.array_equal(pairs.peaks[0], seen.peaks[:2].max(axis=0))
    assert len(seen.tensors) <= MOST_CHANNELS


def test_activations_that_are_not_finite_are_refused() -> None:
    shop = Workshop(residual(), samples=1)
    bad = Arrays([{"x": np.full((1, 3, 16, 16), np.nan, np.float32)}])
    with pytest.raises(DataError, match="not finite"):
        observe(shop.graph, shop.regions, bad, [0], runtime=OnnxRuntime(), threads=1)
