"""Hardware in the loop: the search stays here, what is timed is timed on a device."""

from __future__ import annotations

import msgspec

from edgewise.errors import ConfigError
from edgewise.forge.measure.agent_lab import AgentLab, LabRuntime
from edgewise.forge.measure.probe import measure
from edgewise.forge.prepare import Prepared


def on_device(prepared: Prepared, lab: AgentLab) -> Prepared:
    """Return the same start with kernels, latency, memory and the target's probe taken on the device of `lab`.

    Accuracy is still computed here: it is the same model on the same kind of runtime. Energy stays unknown. Raises
    EdgewiseError where the device cannot run the probe.
    """
    if prepared.further:
        names = ", ".join(each.name for each in (prepared.runtime, *prepared.further))
        raise ConfigError(
            f"the runtimes {names} together with --on",
            required="one runtime at a time with --on",
            next_step="name one with --runtime, and run once for each",
        )
    runtime = LabRuntime(prepared.runtime, lab)
    probed = measure(runtime, threads=prepared.threads)
    target = msgspec.structs.replace(
        prepared.target,
        name=lab.name,
        processor=lab.about.processor,
        memory_mib=None,
        probe=probed.probe,
        signs=probed.signs,
    )
    note = (
        f"latency, memory and kernels were measured by {lab.name} ({lab.about.processor}; {lab.about.versions}); "
        "outputs were computed on this machine, energy is not known"
    )
    return msgspec.structs.replace(prepared, runtime=runtime, lab=lab, target=target, notes=(*prepared.notes, note))
