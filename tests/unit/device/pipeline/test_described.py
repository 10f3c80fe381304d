from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgewise.bundle.read import Bundle
from edgewise.device.pipeline import End
from edgewise.device.pipeline.described import decode
from edgewise.device.pipeline.opened import BundlePipeline
from edgewise.errors import BundleError, ConfigError, EdgewiseError
from tests.faults.device.bundles import real


def installed(folder: Path, version: str, *, seed: int) -> str:
    """Extract a bundle; return the digest of its manifest."""
    Bundle(io.BytesIO(real(version, seed=seed)), name=version).extract(folder)
    return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()


def described(first: str, second: str, **changes: Any) -> bytes:
    stages = [
        {"name": "encoder", "bundle": first, "inputs": {"x": "sound"}, "mailbox": "latest(1)"},
        {"name": "head", "bundle": second, "inputs": {"x": "sound"}, "mailbox": "block(2)", "place": "worker"},
    ]
    stages[1] |= changes
    return msgspec.json.encode({"format_version": 1, "stages": stages})


def test_bundles_with_their_own_variants_run_as_one_pipeline(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("encoder", "head")}
    digests = [installed(folder, "1.0.0", seed=seed) for seed, folder in enumerate(folders.values())]
    sound = np.ones((1, 4), np.float32)
    with BundlePipeline(decode(described(*digests)), folders) as opened:
        ticket = opened.pipeline.submit({"sound": sound}, deadline_ms=20_000)
        assert ticket.result().end is End.OUT
        alone = opened.runtimes["encoder"].infer({"x": sound}).outputs["y"]
        assert np.array_equal(ticket.value["encoder.y"], alone)
        assert ticket.value["head.y"].shape == alone.shape
        assert ticket.outcomes["encoder"].bundle == digests[0]
        assert opened.pipeline.submit({"x": sound}, deadline_ms=20_000).result().reason == "encoder misses sound"
    with pytest.raises(BundleError, match="holds the bundle"):
        BundlePipeline(decode(described(digests[0], "0" * 64)), folders)
    with pytest.raises(ConfigError, match="folders"):
        BundlePipeline(decode(described(*digests)), {"encoder": folders["encoder"]})
    with pytest.raises(BundleError):
        BundlePipeline(decode(described(*digests)), folders | {"head": tmp_path / "nothing"})


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "encoder"},
        {"name": "../head"},
        {"bundle": "no"},
        {"inputs": {"x": "later.y"}},
        {"inputs": {"x": "head.y"}},
        {"mailbox": "block(0)"},
        {"mailbox": "block(999999)"},
        {"mailbox": "keep"},
        {"gap": "jump"},
        {"unknown": 1},
    ],
)
def test_a_description_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    decode(described("0" * 64, "1" * 64))
    with pytest.raises(ConfigError):
        decode(described("0" * 64, "1" * 64, **changes))


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b"\xff", b"[" * 5000, b" " * 70_000, b'{"format_version":2,"stages":[]}']
)
def test_what_is_no_description_is_refused(data: bytes) -> None:
    with pytest.raises(EdgewiseError):
        decode(data)
