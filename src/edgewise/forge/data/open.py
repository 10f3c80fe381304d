"""Open a split, whatever it is kept in."""

from __future__ import annotations

from pathlib import Path

from edgewise.contracts.task import TaskConfig, TaskKind
from edgewise.errors import DataError
from edgewise.forge.data.files import FileDataset
from edgewise.forge.data.images import image_decoder
from edgewise.forge.data.labels import Labelled
from edgewise.forge.data.listing import FILE, list_files
from edgewise.forge.data.npz import open_npz_dataset
from edgewise.forge.data.request import SUFFIX, split_of
from edgewise.forge.data.sounds import sound_decoder
from edgewise.forge.data.tables import SUFFIXES, columns_of
from edgewise.forge.data.text import open_text
from edgewise.forge.data.user import open_user_split
from edgewise.forge.tasks.user import is_user_task, load_user_task
from edgewise.runtimes.base import TensorSpec

CALIBRATE, SELECT, TEST = "calibrate", "select", "test"


def open_split(split: str, *, config: TaskConfig, inputs: tuple[TensorSpec, ...], folder: Path) -> Labelled | None:
    """Return the split `calibrate`, `select` or `test` of a task, or None where there is none.

    Paths are relative to `folder`. The samples of a user's task come from its own `samples(split)`;
    its `select` is asked for only where the config names one. Raises DataError and TaskError.
    """
    path: str | None = {CALIBRATE: config.calibrate, SELECT: config.select, TEST: config.test}[split]
    if config.kind is not None and is_user_task(config.kind):
        if split == SELECT and path is None:
            return None
        found = open_user_split(load_user_task(config.kind, folder=folder), split, inputs=inputs)
        if found is None and split != TEST:
            raise DataError(
                f"{config.kind}: samples({split!r}) gave none", required="at least one", next_step="yield some"
            )
        return found
    return None if path is None else open_dataset(folder / path, config=config, inputs=inputs, folder=folder)


def open_dataset(
    path: Path, *, config: TaskConfig, inputs: tuple[TensorSpec, ...], folder: Path | None = None
) -> Labelled:
    """Return the split at `path` for a model with these inputs.

    A calibration request stands for the split that it names. Paths of the options (a tokenizer) are relative to
    `folder`, by default the split's own. Raises DataError
    where the split does not exist, is of no known kind, or does not fit the model.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist", required="a data file or folder", next_step="check the path")
    if path.suffix == SUFFIX:
        path = split_of(path)
    if path.suffix == ".npz":
        return open_npz_dataset(path, inputs=inputs, pairs=config.kind == TaskKind.EMBEDDING)
    if path.is_dir() or (path.suffix in SUFFIXES and FILE in columns_of(path)):
        return _open_files(path, config=config, inputs=inputs)
    if path.suffix in SUFFIXES:
        return open_text(path, options=config.text, inputs=inputs, folder=folder or path.parent)
    raise DataError(
        f"{path} is of no known kind",
        required="an .npz, a .csv or .tsv table, or a folder of images or sounds",
        next_step="write the samples with numpy.savez(file, x=..., y=...)",
    )


def _open_files(path: Path, *, config: TaskConfig, inputs: tuple[TensorSpec, ...]) -> FileDataset:
    listing = list_files(path)
    if len(inputs) != 1:
        raise DataError(
            f"the model has the inputs {', '.join(spec.name for spec in inputs)}",
            required="one input, which images or sounds can fill",
            next_step="store prepared samples in an npz, one array per input",
        )
    spec = inputs[0]
    decode = image_decoder(config.image, spec) if listing.are_images else sound_decoder(config.audio, spec)
    return FileDataset(path, listing=listing, spec=spec, decode=decode)
