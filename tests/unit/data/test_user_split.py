from __future__ import annotations

import pickle  # noqa: TID251 - datasets travel to worker processes
from pathlib import Path

import numpy as np
import pytest

from edgewise.contracts.task import TaskConfig
from edgewise.errors import DataError, TaskError
from edgewise.forge.data.open import open_split
from edgewise.runtimes.base import TensorSpec

SPEC = TensorSpec("x", "float32", (None, 2))

SOURCE = """
import numpy as np

class Mine:
    def samples(self, split):
        if split == "test":
            return
        for index in range(4):
            yield {feeds}, {target}

    def score(self, outputs, targets):
        return 0.0
"""


def configured(
    folder: Path, feeds: str = "{'x': np.full((1, 2), index)}", target: str = "index", select: str | None = None
) -> TaskConfig:
    (folder / "mine.py").write_text(SOURCE.replace("{feeds}", feeds).replace("{target}", target))
    return TaskConfig(kind="mine.py:Mine", calibrate="", select=select)


def test_samples_are_kept_on_disk_and_read_in_any_order(tmp_path: Path) -> None:
    config = configured(tmp_path)
    dataset = open_split("calibrate", config=config, inputs=(SPEC,), folder=tmp_path)
    assert dataset is not None
    assert len(dataset) == 4
    assert dataset.targets == (0, 1, 2, 3)
    assert dataset[2].feeds["x"].tolist() == [[2, 2]]
    assert dataset[0].feeds["x"].dtype == np.float32
    assert dataset.name == "mine.py:Mine calibrate"
    assert dataset.fingerprint(0) != dataset.fingerprint(1)
    again = open_split("calibrate", config=config, inputs=(SPEC,), folder=tmp_path)
    assert again is not None
    assert again.digest() == dataset.digest()
    assert pickle.loads(pickle.dumps(dataset))[3].target == 3  # noqa: S301 - written here
    with pytest.raises(IndexError):
        dataset[4]


def test_splits_that_it_does_not_give(tmp_path: Path) -> None:
    config = configured(tmp_path)
    assert open_split("test", config=config, inputs=(SPEC,), folder=tmp_path) is None
    assert open_split("select", config=config, inputs=(SPEC,), folder=tmp_path) is None
    select = open_split("select", config=configured(tmp_path, select="yes"), inputs=(SPEC,), folder=tmp_path)
    assert select is not None


def test_an_empty_calibration_is_refused(tmp_path: Path) -> None:
    config = configured(tmp_path)
    (tmp_path / "mine.py").write_text((tmp_path / "mine.py").read_text().replace('== "test"', '!= "test"'))
    with pytest.raises(DataError, match="gave none"):
        open_split("calibrate", config=config, inputs=(SPEC,), folder=tmp_path)


@pytest.mark.parametrize("feeds", ["np.full(2, index)", "np.full((1, 2), index)", "{'x': np.full(2, 1.0)}"])
def test_the_batch_axis_and_the_name_of_an_only_input_may_be_left_out(tmp_path: Path, feeds: str) -> None:
    dataset = open_split("calibrate", config=configured(tmp_path, feeds), inputs=(SPEC,), folder=tmp_path)
    assert dataset is not None
    assert dataset[1].feeds["x"].shape == (1, 2)


def test_whole_inputs_and_scalars(tmp_path: Path) -> None:
    specs = (TensorSpec("state", "float32", (2, 1, 3)), TensorSpec("rate", "int64", ()))
    config = configured(tmp_path, "{'state': np.ones((2, 1, 3)), 'rate': index}", "None")
    dataset = open_split("calibrate", config=config, inputs=specs, folder=tmp_path)
    assert dataset is not None
    assert dataset[2].feeds["state"].shape == (2, 1, 3)
    assert dataset[2].feeds["rate"].shape == ()
    assert dataset[2].feeds["rate"] == 2
    assert dataset.targets is None


@pytest.mark.parametrize(
    ("feeds", "said"),
    [
        ("{'y': np.ones((1, 2))}", "feeds for y"),
        ("{'x': np.ones((1, 3))}", r"sample 0 of 'calibrate', 'x'"),
        ("{'x': np.ones((3, 2))}", "a batch of 3"),
        ("{'x': np.full((1, 2), np.nan if index == 2 else 0)}", "sample 2 of 'calibrate'.*nan"),
        ("{'x': [['a', 'b']]}", "of type str"),
        ("{'x': [[None, None]]}", "of type object"),
    ],
)
def test_samples_that_do_not_fit(tmp_path: Path, feeds: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        open_split("calibrate", config=configured(tmp_path, feeds), inputs=(SPEC,), folder=tmp_path)


def test_an_error_of_the_user_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="ZeroDivisionError"):
        open_split("calibrate", config=configured(tmp_path, "1 / 0"), inputs=(SPEC,), folder=tmp_path)


def test_files_are_opened_relative_to_the_folder(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=np.ones((3, 2)))
    config = TaskConfig(calibrate="c.npz")
    dataset = open_split("calibrate", config=config, inputs=(SPEC,), folder=tmp_path)
    assert dataset is not None
    assert len(dataset) == 3
    assert open_split("test", config=config, inputs=(SPEC,), folder=tmp_path) is None
