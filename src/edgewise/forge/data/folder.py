"""The layout of a data folder that needs no edgewise.toml: calibrate, select and test, by name."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgewise.contracts.task import TaskConfig
from edgewise.errors import DataError

_ENDINGS = (".npz", ".tsv", ".csv", "")
"""Tables before folders: `calibrate.tsv` may name the files in `calibrate/`."""


def resolve_folder(folder: Path, *, config: TaskConfig | None = None, required: str = "calibrate") -> TaskConfig:
    """Return `config` (or defaults) with the splits found in `folder`, as absolute paths.

    A split is `NAME.npz`, `NAME.tsv`, `NAME.csv` or a folder `NAME`, in this order; `required` (`calibrate` or
    `test`) must be there, the others may be. Where `calibrate` is not, its path is that of a file that does not
    exist. Raises DataError that lists what was looked for.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder} is {'not a folder' if folder.exists() else 'missing'}",
            required=f"a folder with {required}.npz",
            next_step="check --data",
        )
    folder = folder.resolve()
    found = {split: _find(folder, split) for split in ("calibrate", "select", "test")}
    if found[required] is None:
        names = sorted(each.name for each in folder.iterdir())
        raise DataError(
            f"{folder} holds {', '.join(names[:8]) or 'nothing'}{', ...' if len(names) > 8 else ''}",
            required="one of " + ", ".join(required + (ending or "/") for ending in _ENDINGS),
            next_step=f"put the samples there: numpy.savez('{required}.npz', x=...)",
        )
    calibrate = found["calibrate"] or str(folder / "calibrate.npz")
    base = config if config is not None else TaskConfig(calibrate=calibrate)
    return msgspec.structs.replace(base, calibrate=calibrate, select=found["select"], test=found["test"])


def _find(folder: Path, split: str) -> str | None:
    for ending in _ENDINGS:
        path = folder / f"{split}{ending}"
        if path.is_file() if ending else path.is_dir():
            return str(path)
    return None
