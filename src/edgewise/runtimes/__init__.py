"""Executes a variant anywhere: one file per runtime behind the protocol of `base`."""

from __future__ import annotations

from edgewise.contracts.target import RuntimeName
from edgewise.runtimes.base import Runtime, installed
from edgewise.runtimes.onnxruntime_ import OnnxRuntime


def runtime(name: RuntimeName) -> Runtime:
    """Return a runtime. Its library is imported at first use; MissingExtraError then names the extra."""
    match name:
        case RuntimeName.ONNXRUNTIME:
            return OnnxRuntime()
        case RuntimeName.OPENVINO:
            from edgewise.runtimes.openvino_ import OpenVino  # noqa: PLC0415 - a device imports what it runs

            return OpenVino()


def available() -> tuple[RuntimeName, ...]:
    """Return the runtimes whose library is installed, the default first."""
    return tuple(name for name in RuntimeName if installed(name.value))
