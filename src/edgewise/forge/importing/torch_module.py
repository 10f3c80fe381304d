"""Have a torch module exported to ONNX by a child process.

The module is the user's own code on the user's own machine, so the child gets the whole environment
and no limits. It is a process of its own for what it leaves behind: memory, threads, a changed
`sys.path`, and now and then a crash.
"""

from __future__ import annotations

import os
from pathlib import Path

from edgewise.errors import MissingExtraError, ModelError
from edgewise.forge.importing.locate import Module
from edgewise.forge.importing.messages import Question
from edgewise.forge.importing.process import Ended, ask
from edgewise.forge.importing.torch_child import EXPORTED
from edgewise.runtimes.base import installed

_CHILD = Path(__file__).with_name("torch_child.py")
_WALL_S = 900


def export(
    module: Module, *, base: Path, inputs: dict[str, tuple[int, ...]], folder: Path
) -> tuple[Path, tuple[str, ...]]:
    """Export to `folder`; return the file and what the user should know of it.

    Raises ModelError where the module cannot be found, built, run or exported, and MissingExtraError
    where torch is not installed.
    """
    if not inputs:
        raise ModelError(
            f"{module}: no shapes of its inputs",
            required="the shape of every input of a torch module, batch first",
            next_step="write them into [model.inputs], like x = [1, 3, 224, 224]",
        )
    if not installed("torch"):
        raise MissingExtraError(
            f"{module}: the library 'torch' is not installed",
            required="edgewise[train]",
            next_step="pip install 'edgewise[train]', or export the module to ONNX elsewhere",
        )
    question = Question(model=str(module), base=str(base.resolve()), inputs=inputs, folder=str(folder))
    try:
        answer = ask(_CHILD, question, environment=os.environ, timeout_s=_WALL_S)
    except Ended as error:
        raise ModelError(
            f"{module}: exporting it {error.why}" + (f": {error.said}" if error.said else ""),
            required="a function that builds the module and returns",
            next_step="call the function and the module in a Python of your own",
        ) from error
    return folder / EXPORTED, answer.notes
