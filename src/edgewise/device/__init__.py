"""The device: trusts, runs and meters. `Runtime` answers inferences; updates and fallbacks are not in place yet."""

from edgewise.device.runtime import Answer, Runtime

__all__ = ["Answer", "Runtime"]
