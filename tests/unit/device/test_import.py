from __future__ import annotations

import subprocess
import sys

LATE = ("importlib.metadata", "tempfile", "socket", "zipfile", "hashlib", "edgewise.runtimes.openvino_")
"""Each takes milliseconds that whoever only infers need not spend."""
TRUST = ("tuf", "securesystemslib", "cryptography", "http.client", "zstandard", "edgewise.bundle", "edgewise.keys")


def loaded(names: tuple[str, ...]) -> str:
    code = f"import sys, edgewise.device; print([name for name in {names} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_the_device_loads_no_trust_code() -> None:
    """A device that only infers pays nothing for updates; `edgewise.device.trust.client` is imported by the update."""
    assert loaded(TRUST) == "[]"


def test_importing_the_device_loads_no_more_than_inferring_needs() -> None:
    assert loaded(LATE) == "[]"
