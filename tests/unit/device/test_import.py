from __future__ import annotations

import subprocess
import sys

LATE = ("tuf", "securesystemslib", "cryptography", "http.client", "zstandard", "edgewise.bundle", "edgewise.keys")


def test_importing_the_device_loads_no_trust_code() -> None:
    """A device that only infers pays nothing for updates; `edgewise.device.trust.client` is imported by the update."""
    code = f"import sys, edgewise.device; print([name for name in {LATE} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
