"""The limits that an importing child sets itself before it touches a file it has no reason to trust."""

from __future__ import annotations

import contextlib
import resource

GIB = 1 << 30

MAX_MODEL_BYTES = 2 * GIB
"""Of graph and weights together: what one protobuf message can hold, and every variant is one."""

# Room for the interpreter and the libraries (address space, not memory) and for small models that
# fold to large ones; then the graph, its serialised forms and the sessions' copies of the weights.
_BASE_BYTES = 8 * GIB
_COPIES = 6
_WRITTEN_BYTES = 256 << 20

CPU_S = 300
WALL_S = 300


def limit(model_bytes: int) -> None:
    """Limit this process to what a model of that many bytes needs; called again when more is known.

    Soft limits are what holds. The hard ones are those of the largest model, so that a model whose
    data turns out to stand in other files can be given more, and nothing more than that.
    """
    memory = _BASE_BYTES + _COPIES * min(model_bytes, MAX_MODEL_BYTES)
    most = _BASE_BYTES + _COPIES * MAX_MODEL_BYTES
    written = min(_WRITTEN_BYTES + 2 * model_bytes, MAX_MODEL_BYTES)
    _set(resource.RLIMIT_AS, memory, most)
    _set(resource.RLIMIT_FSIZE, written, MAX_MODEL_BYTES)
    _set(resource.RLIMIT_CPU, CPU_S, CPU_S + 5)
    _set(resource.RLIMIT_CORE, 0, 0)


def memory_limit() -> int:
    """Return the address space that this process may use, in bytes."""
    return resource.getrlimit(resource.RLIMIT_AS)[0]


def _set(which: int, soft: int, hard: int) -> None:
    """Set one limit, never above a stricter one that the process was started with."""
    present = resource.getrlimit(which)[1]
    if present != resource.RLIM_INFINITY:
        hard = min(hard, present)
    # Some systems know the constant but not the limit (RLIMIT_AS on macOS).
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(which, (min(soft, hard), hard))
