"""`edgewise data` on the packaged model, with faults planted in its data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgewise.cli.main import run
from edgewise.demo import demo_folder
from edgewise.errors import DataError, OutputError
from edgewise.forge.curate.write import check_output, write_selection
from edgewise.forge.data.tables import read_table

MODEL = str(demo_folder() / "model.onnx")


def split(name: str, count: int) -> dict[str, Any]:
    with np.load(demo_folder() / f"{name}.npz") as file:
        order = np.random.default_rng(5).permutation(len(file["x"]))[:count]
        return {key: file[key][order] for key in file.files}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Small sound splits of the packaged data."""
    np.savez(tmp_path / "calibrate.npz", **split("calibrate", 120))
    np.savez(tmp_path / "test.npz", **split("test", 120))
    return tmp_path


def checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[tuple[str, str], dict[str, Any]]]:
    code = run(["data", "check", str(folder), "--model", MODEL, "--json"])
    found = json.loads(capsys.readouterr().out)
    return code, {(each["name"], each["subject"]): each for each in found["findings"]}


BOTH = "calibrate / test"


def test_sound_data_passes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = checked(folder, capsys)
    assert code == 0
    assert {each["grade"] for each in found.values()} <= {"pass", "noted"}
    assert run(["data", "check", str(folder), "--model", MODEL]) == 0
    assert "0 failed, 0 to look at" in capsys.readouterr().out


def test_every_planted_fault_is_found_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calibrate, test = split("calibrate", 120), split("test", 120)
    test["x"][7], test["y"][7] = calibrate["x"][3], calibrate["y"][3]
    nearly = calibrate["x"][4].astype(np.float64)
    test["x"][8] = (nearly * 0.9).astype(test["x"].dtype)
    test["x"][9] = 0
    test["x"][10] = test["x"][11]
    test["y"][20:32] = (test["y"][20:32] + 5) % 10
    np.savez(folder / "test.npz", **test)
    code, found = checked(folder, capsys)
    assert code == 1
    leak = found["data.leakage", BOTH]
    assert leak["grade"] == "fail"
    assert "(number 7)" in leak["detail"]
    assert "(number 8)" in found["data.near_duplicates", BOTH]["detail"]
    assert "(number 9)" in found["data.constant_sample", "test"]["detail"]
    assert found["data.duplicates", "test"]["grade"] == "flag"
    disputed = found["data.suspicious_labels", "test"]
    assert disputed["grade"] == "flag"
    assert disputed["value"] >= 0.08


def test_drift_is_found_in_inputs_and_outputs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = split("test", 120)
    test["x"] = (test["x"].astype(np.float32) * 0.3).astype(test["x"].dtype)
    np.savez(folder / "test.npz", **test)
    code, found = checked(folder, capsys)
    assert code == 1
    assert found["data.input_drift", BOTH]["grade"] == "fail"
    assert found["data.output_drift", BOTH]["grade"] in {"flag", "fail"}


@pytest.mark.parametrize("step", [-1, 1])
def test_labels_that_are_off_by_one_are_found(folder: Path, capsys: pytest.CaptureFixture[str], step: int) -> None:
    test = split("test", 120)
    keep = (test["y"] + step >= 0) & (test["y"] + step < 10)
    np.savez(folder / "test.npz", x=test["x"][keep], y=test["y"][keep] + step)
    code, found = checked(folder, capsys)
    assert code == 1
    shift = found["data.label_shift", "test"]
    assert shift["grade"] == "fail"
    assert f"add {-step:+d}" in shift["advice"]
    assert found["data.missing_class", "test"]["grade"] == "flag"


def test_labels_out_of_range_and_imbalance_are_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calibrate, test = split("calibrate", 120), split("test", 1000)
    calibrate["y"][5] = 10
    many = np.flatnonzero((test["y"] != 3) | (np.cumsum(test["y"] == 3) <= 2))[:300]
    np.savez(folder / "calibrate.npz", **calibrate)
    np.savez(folder / "test.npz", x=test["x"][many], y=test["y"][many])
    code, found = checked(folder, capsys)
    assert code == 1
    assert "10 of sample 5" in found["data.label_range", "calibrate"]["detail"]
    assert found["data.imbalance", "test"]["grade"] == "flag"


def test_values_that_are_not_finite_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = split("test", 40)
    x = test["x"].astype(np.float32)
    x[3, ..., 0], x[30, ..., 1] = np.nan, np.inf
    np.savez(folder / "test.npz", x=x, y=test["y"])
    code, found = checked(folder, capsys)
    assert code == 1
    assert "2 rows" in found["data.not_finite", "test"]["detail"]
    assert "x[3], x[30]" in found["data.not_finite", "test"]["detail"]


def test_a_split_of_the_wrong_shape_is_a_finding_and_a_missing_folder_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(folder / "test.npz", x=np.zeros((4, 9), np.float32))
    code, found = checked(folder, capsys)
    assert code == 1
    assert found["data.readable", "test"]["grade"] == "fail"
    assert run(["data", "check", str(folder / "none"), "--model", MODEL]) == 2
    assert run(["data", "check", str(folder)]) == 2


def test_selected_rows_are_those_of_the_pools_and_the_same_for_a_seed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pools = [str(folder / "calibrate.npz"), str(folder / "test.npz")]
    written = [folder / "one.npz", folder / "two.npz"]
    documents = []
    for output in written:
        command = ["data", "select", *pools, "--model", MODEL, "--samples", "30", "--json", "-o", str(output)]
        assert run(command) == 0
        documents.append(json.loads(capsys.readouterr().out))
    found = documents[0]
    assert written[0].read_bytes() == written[1].read_bytes()
    assert not list(folder.glob(".*partial"))
    assert len(found["samples"]) == 30
    coverages = {each["method"]: each["coverage"] for each in found["compared"]}
    assert coverages["cover"] > coverages["random"]
    sources = {name: np.load(name) for name in pools}
    with np.load(written[0]) as chosen:
        for at, each in enumerate(found["samples"]):
            for array in ("x", "y"):
                assert chosen[array].dtype == sources[each["pool"]][array].dtype
                assert np.array_equal(chosen[array][at], sources[each["pool"]][array][each["index"]])
    for each in sources.values():
        each.close()


def test_chosen_files_and_sentences_become_tables(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for number in range(4):
        (images / str(number % 2)).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(images / str(number % 2) / f"{number}.png")
    write_selection([images], [(0, 3), (0, 0)], tmp_path / "out" / "calibrate.csv")
    rows = read_table(tmp_path / "out" / "calibrate.csv")
    assert rows == [{"file": "../images/1/3.png", "label": "1"}, {"file": "../images/0/0.png", "label": "0"}]
    table = tmp_path / "pairs.tsv"
    table.write_text('sentence1\tsentence2\tscore\na "b\tc\t1\nd\te\t2\nf\tg\t3\n')
    write_selection([table], [(0, 4), (0, 5), (0, 0), (0, 1)], tmp_path / "chosen.tsv", group=2)
    assert (tmp_path / "chosen.tsv").read_text() == 'sentence1\tsentence2\tscore\nf\tg\t3\na "b\tc\t1\n'


def test_pair_scores_follow_their_pairs(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", x=np.arange(8).reshape(8, 1), y=np.arange(4.0), rate=np.int64(16000))
    write_selection([tmp_path / "p.npz"], [(0, 6), (0, 7), (0, 0), (0, 1)], tmp_path / "o.npz", group=2)
    with np.load(tmp_path / "o.npz") as chosen:
        assert chosen["x"].ravel().tolist() == [6, 7, 0, 1]
        assert chosen["y"].tolist() == [3.0, 0.0]
        assert chosen["rate"] == 16000


def test_outputs_that_cannot_hold_the_choice_are_refused_before_the_work(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", x=np.zeros((2, 1)))
    (tmp_path / "t.tsv").write_text("sentence\na\n")
    with pytest.raises(OutputError, match=r"c\.csv"):
        check_output([tmp_path / "p.npz"], tmp_path / "c.csv")
    with pytest.raises(OutputError, match="one of the pools"):
        check_output([tmp_path / "p.npz"], tmp_path / "p.npz")
    with pytest.raises(DataError, match="different kinds"):
        check_output([tmp_path / "p.npz", tmp_path / "t.tsv"], tmp_path / "c.npz")
    np.savez(tmp_path / "q.npz", x=np.zeros((2, 2)))
    with pytest.raises(DataError, match="differ in type or shape"):
        write_selection([tmp_path / "p.npz", tmp_path / "q.npz"], [(0, 0), (1, 0)], tmp_path / "o.npz")
    assert not (tmp_path / "o.npz").exists()
