"""The process of one measurement: `python -m edgewise.device.lab_child FOLDER MEMORY_MIB`; answers in JSON.

It has limits of its own and does one thing: a model which takes all memory, crashes or never returns ends it and not
the agent, and its memory is the model's.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import msgspec


def main(folder: Path, memory_mib: int) -> bytes:
    """Limit this process, measure, return a `LabAnswer` as JSON."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_mib << 20, memory_mib << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The libraries are loaded under the limit too.
    from edgewise.contracts.lab import QUESTION, LabAnswer, LabQuestion  # noqa: PLC0415
    from edgewise.device.lab import measured  # noqa: PLC0415
    from edgewise.errors import EdgewiseError  # noqa: PLC0415

    try:
        question = msgspec.json.decode((folder / QUESTION).read_bytes(), type=LabQuestion)
        return msgspec.json.encode(measured(question, folder))
    except (EdgewiseError, OSError, ValueError, MemoryError) as error:
        return msgspec.json.encode(LabAnswer(problem=(str(error) or type(error).__name__).splitlines()[0]))


if __name__ == "__main__":
    sys.stdout.buffer.write(main(Path(sys.argv[1]), int(sys.argv[2])))
