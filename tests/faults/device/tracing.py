"""Kills a process at one of its system calls that change a disk, whichever library makes it (Linux, ptrace(2))."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
from collections.abc import Callable

WRITES = {
    # write pwrite64 writev pwritev fsync fdatasync ftruncate rename(at)(2) unlink(at)
    "x86_64": {1, 18, 20, 296, 74, 75, 77, 82, 264, 316, 87, 263},
    "aarch64": {64, 68, 66, 70, 82, 83, 46, 38, 276, 35},
}
TRACE_ME, KILL_WITH_ME, SET_OPTIONS, SYSCALL, SYSCALL_INFO = 0, 0x100000, 0x4200, 24, 0x420E
ENTRY = 1
NEVER = 1 << 30


def killed_at(step: int, work: Callable[[], object]) -> tuple[bool, int]:
    """Do work in a child that is killed before its call number `step`; return whether it was, and how many were made.

    Raises OSError where the system does not let a process trace its child.
    """
    calls = WRITES[platform.machine()]
    child = os.fork()
    if child == 0:
        try:
            _ptrace(TRACE_ME, 0, 0, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            work()
        except BaseException:  # noqa: BLE001 - the parent sees the status
            os._exit(1)
        os._exit(0)
    made, forwarded = 0, 0
    _, status = os.waitpid(child, 0)
    if not os.WIFSTOPPED(status):
        raise OSError(f"the child cannot be traced: {status}")
    _ptrace(SET_OPTIONS, child, 0, KILL_WITH_ME | 1)
    while True:
        _ptrace(SYSCALL, child, 0, forwarded)
        _, status = os.waitpid(child, 0)
        if not os.WIFSTOPPED(status):
            assert status == 0, status
            return False, made
        forwarded = 0
        if os.WSTOPSIG(status) != signal.SIGTRAP | 0x80:
            forwarded = os.WSTOPSIG(status)
        elif _entered(child) in calls:
            made += 1
            if made == step:
                os.kill(child, signal.SIGKILL)
                _, status = os.waitpid(child, 0)
                assert os.WIFSIGNALED(status)
                return True, made


def _entered(child: int) -> int | None:
    """Return the number of the call that begins, None where one ends."""
    info = ctypes.create_string_buffer(88)
    _ptrace(SYSCALL_INFO, child, len(info), ctypes.addressof(info))
    (number,) = struct.unpack_from("Q", info, 24)
    return int(number) if info.raw[0] == ENTRY else None


def _ptrace(request: int, pid: int, address: int, data: int) -> None:
    call = ctypes.CDLL(None, use_errno=True).ptrace
    call.restype, call.argtypes = ctypes.c_long, [ctypes.c_long] * 4
    if call(request, pid, address, data) == -1:
        raise OSError(ctypes.get_errno(), f"ptrace {request}: {os.strerror(ctypes.get_errno())}")
