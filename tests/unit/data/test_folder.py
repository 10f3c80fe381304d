from __future__ import annotations

from pathlib import Path

import pytest

from edgewise.contracts.task import TaskConfig
from edgewise.errors import DataError
from edgewise.forge.data.folder import resolve_folder


def test_splits_are_found_by_name(tmp_path: Path) -> None:
    (tmp_path / "calibrate.npz").touch()
    (tmp_path / "test").mkdir()
    found = resolve_folder(tmp_path)
    assert found == TaskConfig(calibrate=str(tmp_path / "calibrate.npz"), test=str(tmp_path / "test"))
    (tmp_path / "select.csv").touch()
    assert resolve_folder(tmp_path).select == str(tmp_path / "select.csv")


def test_an_npz_comes_before_a_table_and_a_table_before_a_folder(tmp_path: Path) -> None:
    (tmp_path / "calibrate").mkdir()
    for ending in ("", ".csv", ".tsv", ".npz"):
        path = tmp_path / f"calibrate{ending}"
        if ending:
            path.touch()
        assert resolve_folder(tmp_path).calibrate == str(path)


def test_other_options_are_kept(tmp_path: Path) -> None:
    (tmp_path / "calibrate.tsv").touch()
    config = TaskConfig(kind="embedding", calibrate="old", test="old", samples=7)
    found = resolve_folder(tmp_path, config=config)
    assert (found.kind, found.samples, found.test) == ("embedding", 7, None)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.mkdir(), r"holds nothing\n.*calibrate\.npz, calibrate\.tsv, calibrate\.csv, calibrate/"),
        (lambda path: path.touch(), "not a folder"),
        (lambda _: None, "is missing"),
        (lambda path: (path.mkdir(), [(path / f"{i}.npz").touch() for i in range(9)]), r"holds 0\.npz.*, \.\.\."),
    ],
)
def test_folders_without_calibration_data(tmp_path: Path, make: object, said: str) -> None:
    path = tmp_path / "data"
    assert callable(make)
    make(path)
    with pytest.raises(DataError, match=said):
        resolve_folder(path)
