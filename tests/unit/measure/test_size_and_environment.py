from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from edgewise.errors import ModelError
from edgewise.forge.measure.environment import environment
from edgewise.forge.measure.size import size_mib
from tests.unit.runtimes.models import heavy


def test_external_data_counts(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(heavy(megabytes=4), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "unrelated.bin").write_bytes(bytes(1 << 20))
    both = path.stat().st_size + (tmp_path / "weights.bin").stat().st_size
    assert size_mib(path) == both / 2**20
    assert 4.0 <= size_mib(path) < 4.1


def test_embedded_weights_count_once(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(heavy(megabytes=4), str(path))
    assert 4.0 <= size_mib(path) < 4.1


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.onnx"):
        size_mib(tmp_path / "model.onnx")
    onnx.save(
        heavy(megabytes=1), str(tmp_path / "model.onnx"), save_as_external_data=True, location="w", size_threshold=0
    )
    (tmp_path / "w").unlink()
    with pytest.raises(ModelError):
        size_mib(tmp_path / "model.onnx")


def test_the_environment_names_machine_and_versions() -> None:
    found = environment(threads=3, seed=7)
    assert (found.threads, found.seed) == (3, 7)
    assert found.cores >= 1
    assert found.memory_mib > 100
    assert found.processor
    assert {"numpy", "onnxruntime"} <= found.versions.keys()
