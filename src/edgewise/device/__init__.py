"""The device: trusts, runs and meters. `Runtime` answers inferences, and says what each answer is."""

from edgewise.device.runtime import Answer, Runtime

__all__ = ["Answer", "Runtime"]
