"""Target profiles: those that edgewise knows by name, this machine, and a user's own file."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import msgspec
import psutil

from edgewise.contracts.target import Target
from edgewise.contracts.units import mib
from edgewise.errors import TargetError
from edgewise.forge.measure.environment import processor, processor_flags
from edgewise.forge.measure.probe import probed
from edgewise.runtimes import available

LOCAL = "local"
"""The name of the machine that edgewise runs on."""

_PROFILES = Path(__file__).with_name("profiles")

_RELEVANT = (
    "avx2",
    "fma",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_fp16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)
"""Instruction sets that decide how fast a number format runs, as Linux spells them."""


def list_targets() -> tuple[Target, ...]:
    """Return this machine and all built-in profiles, by name; nothing is measured."""
    return local_target(), *(_read(path) for path in sorted(_PROFILES.glob("*.toml")))


def load_target(name: str, *, folder: Path | None = None) -> Target:
    """Return a target by its name, or from a TOML file (a name that ends in `.toml`).

    A relative file is looked for in `folder`. Raises TargetError with the nearest known name, or
    with what is wrong in the file.
    """
    if name == LOCAL:
        return local_target()
    if name.endswith(".toml"):
        return _read((folder or Path()) / name)
    known = {path.stem: path for path in sorted(_PROFILES.glob("*.toml"))}
    if name in known:
        return _read(known[name])
    names = [LOCAL, *known]
    near = difflib.get_close_matches(name, names, n=1)
    raise TargetError(
        f"unknown target {name!r}",
        required=f"one of {', '.join(names)}, or a .toml file",
        next_step=f"did you mean {near[0]!r}?" if near else "see `edgewise targets list`",
    )


def local_target() -> Target:
    """Describe this machine: one thread, the runtimes that are installed, no power model."""
    flags = processor_flags()
    return Target(
        name=LOCAL,
        description="The machine that edgewise runs on; `edgewise targets probe` measures it.",
        processor=processor(),
        instruction_sets=tuple(each for each in _RELEVANT if each in flags),
        memory_mib=round(mib(psutil.virtual_memory().total), 1),
        runtimes=available(),
    )


def is_here(target: Target) -> bool:
    """Return whether this machine is of the target's class, so that measuring it says something."""
    if target.name == LOCAL:
        return True
    return bool(target.instruction_sets) and set(target.instruction_sets) <= processor_flags()


def probe(target: Target, *, threads: int | None = None, fresh: bool = False, cache: Path | None = None) -> Target:
    """Return the target with its `probe` and its `signs` as measured on this machine.

    Takes a second the first time, then reads the user's cache folder unless `fresh`. Raises
    TargetError where the target is not of this machine's class.
    """
    if not is_here(target):
        raise TargetError(
            f"the target {target.name!r} cannot be measured on this machine ({processor()})",
            required=f"a processor with {', '.join(target.instruction_sets) or 'stated instruction sets'}",
            next_step="run `edgewise targets probe` on the device",
        )
    used = target.threads if threads is None else threads
    found = probed(threads=used, fresh=fresh, cache=cache)
    return msgspec.structs.replace(target, probe=found.probe, signs=found.signs, threads=used)


def _read(path: Path) -> Target:
    try:
        target = msgspec.toml.decode(path.read_bytes(), type=Target)
    except OSError as error:
        raise TargetError(f"the target profile {path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise TargetError(f"{path}: {error}", required="a target profile", next_step=_advice(str(error))) from error
    for holds, words in (
        (target.name != LOCAL, f"a name other than {LOCAL!r}, which is this machine"),
        (target.threads >= 1, "threads of 1 or more"),
        (bool(target.runtimes), "at least one runtime"),
        (target.memory_mib is None or target.memory_mib > 0, "memory_mib above 0"),
        (target.power is None or min(target.power.idle_w, target.power.active_w) >= 0, "power of 0 W or more"),
    ):
        if not holds:
            raise TargetError(f"{path} does not describe a device", required=words)
    return target


def _advice(message: str) -> str:
    fields = [field.name for field in msgspec.structs.fields(Target)]
    unknown = re.search(r"unknown field `(\w+)`", message)
    near = difflib.get_close_matches(unknown[1], fields, n=1) if unknown else []
    return f"did you mean {near[0]!r}?" if near else f"its keys are {', '.join(fields)}"
