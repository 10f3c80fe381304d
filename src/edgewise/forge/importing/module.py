"""Export a torch module."""

from __future__ import annotations

from pathlib import Path

from edgewise.errors import ModelError
from edgewise.forge.importing.locate import Module


def export(module: Module, *, base: Path, inputs: dict[str, tuple[int, ...]], folder: Path) -> Path:
    """TODO."""
    raise ModelError("torch modules are not there yet")
