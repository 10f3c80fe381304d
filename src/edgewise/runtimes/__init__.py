"""Executes a variant anywhere: one file per runtime behind the protocol of `base`."""

from __future__ import annotations

from edgewise.contracts.target import RuntimeName
from edgewise.runtimes.base import Runtime, installed
from edgewise.runtimes.onnxruntime_ import OnnxRuntime
from edgewise.runtimes.openvino_ import OpenVino


def runtime(name: RuntimeName) -> Runtime:
    """Return a runtime. Its library is imported at first use; MissingExtraError then names the extra."""
    match name:
        case RuntimeName.ONNXRUNTIME:
            return OnnxRuntime()
        case RuntimeName.OPENVINO:
            return OpenVino()


def available() -> tuple[RuntimeName, ...]:
    """Return the runtimes whose library is installed, the default first."""
    return tuple(name for name in RuntimeName if installed(name.value))
