from __future__ import annotations

import io
import pickle  # noqa: TID251 - datasets travel to worker processes
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgewise.errors import DataError
from edgewise.forge.data.labels import check_labels, has_integer_labels
from edgewise.forge.data.npz import NpzDataset, open_npz_dataset
from edgewise.forge.tasks.base import Array, iterate
from edgewise.forge.tasks.embedding import Pair
from edgewise.runtimes.base import TensorSpec

IMAGE = TensorSpec("image", "float32", (None, 3, 4, 5))
IDS = TensorSpec("input_ids", "int64", (None, None))
MASK = TensorSpec("attention_mask", "int64", (None, None))
ROWS = np.random.default_rng(0).normal(size=(6, 3, 4, 5)).astype(np.float32)


def written(folder: Path, *, packed: bool = False, **arrays: Any) -> Path:
    path = folder / "data.npz"
    (np.savez_compressed if packed else np.savez)(path, **arrays)
    return path


def opened(folder: Path, *specs: TensorSpec, pairs: bool = False, packed: bool = False, **arrays: Any) -> NpzDataset:
    return open_npz_dataset(written(folder, packed=packed, **arrays), inputs=specs or (IMAGE,), pairs=pairs)


@pytest.mark.parametrize("packed", [False, True])
def test_samples_come_one_by_one_with_their_label(tmp_path: Path, *, packed: bool) -> None:
    dataset = opened(tmp_path, packed=packed, x=ROWS, y=np.arange(6))
    assert len(dataset) == 6
    for index, sample in enumerate(iterate(dataset)):
        assert list(sample.feeds) == ["image"]
        assert np.array_equal(sample.feeds["image"], ROWS[index : index + 1])
        assert sample.target == index
    assert [each.target for each in iterate(dataset, [4, 1])] == [4, 1]
    with pytest.raises(IndexError):
        dataset[6]


def test_an_array_may_have_the_inputs_name(tmp_path: Path) -> None:
    assert len(opened(tmp_path, image=ROWS)) == 6
    assert opened(tmp_path, image=ROWS).targets is None


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float64", "float16", ">f4", "bool"])
def test_numbers_become_the_models_floats_without_scaling(tmp_path: Path, dtype: str) -> None:
    values = np.arange(6 * 60).reshape(6, 3, 4, 5).astype(dtype)
    feed = opened(tmp_path, x=values)[2].feeds["image"]
    assert feed.dtype == np.float32
    assert np.array_equal(feed[0], values[2].astype(np.float32))


def test_ids_are_cast_where_they_fit(tmp_path: Path) -> None:
    spec = TensorSpec("ids", "int32", (None, 2))
    assert opened(tmp_path, spec, x=np.array([[1, 2], [3, 2**31 - 1]]))[1].feeds["ids"].dtype == np.int32
    with pytest.raises(DataError, match=r"2147483648.*\n.*range of int32"):
        opened(tmp_path, spec, x=np.array([[1, 2], [3, 2**31]]))


def test_inputs_without_a_batch_axis_and_scalars(tmp_path: Path) -> None:
    specs = (TensorSpec("state", "float32", (2, 1, 3)), TensorSpec("rate", "int64", ()))
    state = np.arange(24, dtype=np.float32).reshape(4, 2, 1, 3)
    shared = opened(tmp_path, *specs, state=state, rate=np.array(16000))
    assert np.array_equal(shared[3].feeds["state"], state[3])
    assert shared[3].feeds["rate"].shape == ()
    own = opened(tmp_path, *specs, state=state, rate=np.arange(4))
    assert own[2].feeds["rate"] == 2
    assert own[2].feeds["rate"].shape == ()
    assert own.fingerprint(2) != own.fingerprint(1)


def test_padded_text_comes_at_its_own_length(tmp_path: Path) -> None:
    ids = np.array([[5, 6, 7, 0], [5, 0, 0, 0], [5, 6, 7, 8]])
    dataset = opened(tmp_path, IDS, MASK, input_ids=ids, attention_mask=(ids > 0).astype(np.int64))
    assert [each.feeds["input_ids"].shape for each in iterate(dataset)] == [(1, 3), (1, 1), (1, 4)]
    assert dataset[0].feeds["attention_mask"].tolist() == [[1, 1, 1]]
    fixed = (TensorSpec("input_ids", "int64", (1, 4)), TensorSpec("attention_mask", "int64", (1, 4)))
    static = opened(tmp_path, *fixed, input_ids=ids, attention_mask=(ids > 0).astype(np.int64))
    assert static[1].feeds["input_ids"].shape == (1, 4)


def test_a_text_without_a_token_is_refused(tmp_path: Path) -> None:
    dataset = opened(tmp_path, IDS, MASK, input_ids=np.ones((2, 3), int), attention_mask=np.eye(2, 3, -1, int))
    with pytest.raises(DataError, match=r"sample 0: attention_mask is all zero"):
        dataset[0]


def test_labels_of_many_kinds(tmp_path: Path) -> None:
    assert opened(tmp_path, x=ROWS, y=np.arange(6)[:, None]).targets == (0, 1, 2, 3, 4, 5)
    assert opened(tmp_path, x=ROWS, y=np.array([True, False] * 3)).targets == (1, 0) * 3
    assert opened(tmp_path, x=ROWS, y=np.array(list("abcdef"))).targets == tuple("abcdef")
    rows = opened(tmp_path, x=ROWS, y=np.eye(6))[2].target
    assert rows.tolist() == [0, 0, 1, 0, 0, 0]


def test_boxes_go_to_their_image(tmp_path: Path) -> None:
    boxes = np.array([[3, 7, 0, 0, 2, 2], [0, 1, 1, 1, 3, 4], [3, 2, 0, 1, 2, 2]], np.float64)
    dataset = opened(tmp_path, x=ROWS, boxes=boxes)
    assert dataset[3].target.tolist() == [[7, 0, 0, 2, 2], [2, 0, 1, 2, 2]]
    assert dataset[1].target.shape == (0, 5)


def test_a_score_for_two_rows_is_a_pair(tmp_path: Path) -> None:
    dataset = opened(tmp_path, x=ROWS, y=np.array([0.5, 4, 5]), pairs=True)
    assert dataset[3].target == dataset[2].target == Pair(index=1, score=4)


def test_what_nothing_reads_is_said(tmp_path: Path) -> None:
    (warning,) = opened(tmp_path, x=ROWS, label=np.arange(6)).warnings
    assert "'label': labels are named 'y'" in warning
    assert opened(tmp_path, x=ROWS, y=np.arange(6)).warnings == ()


def test_equal_content_has_an_equal_digest(tmp_path: Path) -> None:
    first = opened(tmp_path, x=ROWS).digest()
    assert first == opened(tmp_path, x=ROWS).digest()
    assert first != opened(tmp_path, x=ROWS + 1).digest()
    assert len(first) == 64


@pytest.mark.parametrize("packed", [False, True])
def test_a_dataset_travels_and_the_unpacked_copy_stays_with_its_owner(tmp_path: Path, *, packed: bool) -> None:
    dataset = opened(tmp_path, packed=packed, x=ROWS, y=np.arange(6))
    copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301 - written here
    copy.close()
    del copy
    assert np.array_equal(dataset[5].feeds["image"], ROWS[5:])
    dataset.close()
    if packed:
        with pytest.raises(DataError, match="No such file"):
            dataset[0]


def test_the_unpacked_copy_goes_away_with_the_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dataset = opened(tmp_path, packed=True, x=ROWS)
    assert [each for each in tmp_path.iterdir() if each.is_dir()]
    assert len(dataset) == 6
    del dataset
    assert not [each for each in tmp_path.iterdir() if each.is_dir()]


def poisoned(value: float) -> Array:
    rows = ROWS.copy()
    rows[4, 1, 2, 3] = value
    return rows


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": poisoned(np.nan)}, r"sample 4 holds nan.*\n.*finite"),
        ({"x": poisoned(-np.inf)}, "sample 4 holds -inf"),
        ({"x": ROWS.astype(np.float64) * 1e300}, "not a finite float32"),
        ({"x": ROWS[:0]}, "no samples"),
        ({"x": ROWS[:, :2]}, r"samples of shape \[2, 4, 5\]\n.*\[3, 4, 5\]"),
        ({"x": ROWS.transpose(0, 2, 3, 1).copy()}, r"x\.transpose\(0, 3, 1, 2\)"),
        ({"x": ROWS[0]}, "samples of shape"),
        ({"x": np.float32(1)}, "samples of shape"),
        ({"x": ROWS.astype(complex)}, "complex128"),
        ({"x": np.full((6, 3, 4, 5), "a")}, "of type str"),
        ({"x": np.asfortranarray(ROWS)}, "Fortran order"),
        ({"x": np.zeros(6, [("a", int)])}, "structured"),
        ({"y": np.arange(6)}, r"holds 'y'\n.*'image' \(or 'x'\)"),
        ({}, "no arrays"),
        ({"x": ROWS, "y": np.arange(5)}, r"has 5 rows\n.*6, one label per sample"),
        ({"x": ROWS, "y": np.array(3)}, "has no rows"),
        ({"x": ROWS, "y": np.array([0, 1, 2, 3, 4, np.nan])}, "NaN or infinity"),
        ({"x": ROWS, "y": np.ones(6, complex)}, "complex128"),
        ({"x": ROWS, "boxes": np.zeros((2, 5))}, r"shape \[2, 5\]"),
        ({"x": ROWS, "boxes": np.array([[6.0, 0, 0, 0, 1, 1]])}, "row 0"),
        ({"x": ROWS, "boxes": np.array([[0, 0, 0, 0, 1, 1], [1, 0, 5, 0, 1, 1]])}, "row 1"),
        ({"x": ROWS, "boxes": np.array([[0, -1.0, 0, 0, 1, 1]])}, "row 0"),
        ({"x": ROWS, "boxes": np.array([[0, 0.5, 0, 0, 1, 1]])}, "row 0"),
        ({"x": ROWS, "boxes": np.array([[0, 0, 0, 0, 1, np.inf]])}, "NaN or infinity"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        opened(tmp_path, **arrays)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Boom:
        def __reduce__(self) -> tuple[Any, ...]:
            return pytest.fail, ("unpickled",)

    with pytest.raises(DataError, match="never unpickled"):
        opened(tmp_path, x=np.array([Boom()] * 6, object))


def test_arrays_of_different_length_and_missing_inputs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"differ in length: 'input_ids' 4, 'attention_mask' 3"):
        opened(tmp_path, IDS, MASK, input_ids=np.ones((4, 2), int), attention_mask=np.ones((3, 2), int))
    with pytest.raises(DataError, match="one per model input"):
        opened(tmp_path, IDS, MASK, x=np.ones((4, 2), int))
    with pytest.raises(DataError, match=r"of type float64\n.*int64"):
        opened(tmp_path, IDS, MASK, input_ids=np.ones((4, 2)), attention_mask=np.ones((3, 2), int))


def test_models_that_npz_cannot_feed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="batch is fixed to 8"):
        opened(tmp_path, TensorSpec("image", "float32", (8, 3, 4, 5)), x=ROWS)
    with pytest.raises(DataError, match="of type string"):
        opened(tmp_path, TensorSpec("image", "string", (None, 3)), x=np.ones((2, 3)))


def corrupted(folder: Path, how: str) -> Path:
    path = written(folder, x=ROWS, packed=how == "packed")
    content = bytearray(path.read_bytes())
    match how:
        case "empty":
            content = bytearray()
        case "half" | "text":
            content = content[: len(content) // 2] if how == "half" else bytearray(b"not a zip")
        case "packed":
            content[200:260] = bytes(60)
        case "magic":
            content[content.index(b"\x93NUMPY")] = 0
        case "shape":
            at = content.index(b"(6, 3, 4, 5)")
            content[at : at + 12] = b"(7, 3, 4, 5)"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("how", ["empty", "half", "text", "packed", "magic", "shape"])
def test_files_that_are_damaged(tmp_path: Path, how: str) -> None:
    with pytest.raises(DataError, match=r"data\.npz"):
        open_npz_dataset(corrupted(tmp_path, how), inputs=(IMAGE,))


def test_members_that_are_no_arrays(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DataError, match="not an array"):
        open_npz_dataset(path, inputs=(IMAGE,))


def test_a_file_that_shrinks_during_the_run(tmp_path: Path) -> None:
    dataset = opened(tmp_path, x=ROWS)
    path = tmp_path / "data.npz"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="ends before row 5"):
        dataset[5]
    path.unlink()
    with pytest.raises(DataError, match="No such file"):
        dataset[0]


def test_a_local_header_with_an_extra_field_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    buffer = io.BytesIO()
    np.save(buffer, ROWS)
    info = zipfile.ZipInfo("x.npy")
    info.extra = b"\x99\x99\x04\x00abcd"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, buffer.getvalue())
    assert np.array_equal(open_npz_dataset(path, inputs=(IMAGE,))[3].feeds["image"], ROWS[3:4])


@pytest.mark.parametrize(
    ("y", "said"), [([0, 1, 2, 3, 4, 6], "sample 5 is 6"), ([0, 1, -1, 3, 4, 5], "sample 2 is -1")]
)
def test_labels_out_of_range(tmp_path: Path, y: list[int], said: str) -> None:
    dataset = opened(tmp_path, x=ROWS, y=np.array(y))
    assert has_integer_labels(dataset)
    with pytest.raises(DataError, match=f"{said}\n.*0 to 5"):
        check_labels(dataset, classes=6)
    check_labels(opened(tmp_path, x=ROWS, y=np.arange(6)), classes=6)


def test_labels_that_are_no_classes(tmp_path: Path) -> None:
    dataset = opened(tmp_path, x=ROWS, y=np.arange(6) / 2)
    assert not has_integer_labels(dataset)
    assert not has_integer_labels(opened(tmp_path, x=ROWS))
    with pytest.raises(DataError, match=r"sample 0 is 0\.0"):
        check_labels(dataset, classes=6)


@settings(max_examples=40, deadline=None)
@given(
    st.data(),
    hnp.array_shapes(min_dims=1, max_dims=4, max_side=6),
    st.sampled_from(["float32", "int16", "uint8", "float64"]),
)
def test_every_row_is_the_stored_one(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, shape: tuple[int, ...], dtype: str
) -> None:
    elements = st.integers(0, 100)
    values = data.draw(hnp.arrays(dtype, shape, elements=elements))
    spec = TensorSpec("x", "float32", (None, *shape[1:]))
    for packed in (False, True):
        dataset = opened(tmp_path_factory.mktemp("npz"), spec, packed=packed, x=values)
        found = np.concatenate([each.feeds["x"] for each in iterate(dataset)])
        assert np.array_equal(found, values.astype(np.float32))
        dataset.close()
