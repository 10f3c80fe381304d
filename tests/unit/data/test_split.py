from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.errors import DataError
from edgewise.forge.data.leakage import leakage
from edgewise.forge.data.npz import NpzDataset, open_npz_dataset
from edgewise.forge.data.split import Subset, split_pool
from edgewise.runtimes.base import TensorSpec

SPEC = TensorSpec("x", "float32", (None, 2))
ROWS = np.arange(40, dtype=np.float32).reshape(20, 2)


def dataset(path: Path, rows: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = ROWS) -> NpzDataset:
    np.savez(path, x=rows, y=np.arange(len(rows)))
    return open_npz_dataset(path, inputs=(SPEC,))


@given(st.integers(1, 500), st.floats(0.01, 0.99), st.integers(0, 2**32), st.integers(1, 3))
def test_parts_are_disjoint_together_all_and_the_same_for_a_seed(n: int, share: float, seed: int, group: int) -> None:
    calibrate, select = split_pool(n, share=share, seed=seed, group=group)
    assert sorted(calibrate + select) == list(range(n))
    assert (calibrate, select) == split_pool(n, share=share, seed=seed, group=group)
    assert list(calibrate) == sorted(calibrate)
    assert calibrate
    assert bool(select) == (n > group)
    assert abs(len(select) - share * n) <= 1.5 * group
    assert not {i // group for i in calibrate} & {i // group for i in select}


def test_other_seeds_split_otherwise() -> None:
    assert split_pool(100, share=0.3, seed=0) != split_pool(100, share=0.3, seed=1)


def test_what_cannot_be_split() -> None:
    with pytest.raises(DataError, match="empty"):
        split_pool(0, share=0.3, seed=0)
    for share in (0, 1, -0.1, 2):
        with pytest.raises(ValueError, match="share"):
            split_pool(10, share=share, seed=0)


def test_a_subset_is_a_view(tmp_path: Path) -> None:
    whole = dataset(tmp_path / "a.npz")
    part = Subset(whole, [7, 3])
    assert len(part) == 2
    assert part[1].target == 3
    assert part.targets == (7, 3)
    assert part.name.endswith("(2 of 20)")
    assert part.warnings == ()
    assert part.fingerprint(0) == whole.fingerprint(7)
    assert part.digest() != Subset(whole, [3, 7]).digest() != whole.digest()
    assert part.digest() == Subset(whole, [7, 3]).digest()
    for outside in (2, -1):
        with pytest.raises(IndexError):
            part[outside]
        with pytest.raises(IndexError, match="0 to 19"):
            Subset(whole, [20, outside])


def test_leakage_is_said_with_numbers(tmp_path: Path) -> None:
    calibrate, test = dataset(tmp_path / "c.npz", ROWS[:12]), dataset(tmp_path / "t.npz", ROWS[10:])
    said = leakage(calibrate, test)
    assert said is not None
    assert said.startswith("2 of 10 samples of")
    assert "(number 0, 1)" in said
    assert leakage(calibrate, dataset(tmp_path / "n.npz", ROWS[12:])) is None
    assert leakage(Subset(calibrate, range(5)), test) is None


def test_leakage_looks_at_some_of_very_many(tmp_path: Path) -> None:
    one = dataset(tmp_path / "c.npz")
    said = leakage(one, one, most=5)
    assert said is not None
    assert said.startswith("5 of 5 samples")
    assert "..." not in said
