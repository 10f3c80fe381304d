"""The test samples whose answer changed, read again from the data to be shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgewise.contracts.evidence import FlipEvidence
from edgewise.contracts.run import Run
from edgewise.contracts.target import RuntimeName
from edgewise.contracts.task import TaskConfig
from edgewise.errors import EdgewiseError
from edgewise.forge.data.open import TEST, open_split
from edgewise.forge.report.pictures import Array, Picture
from edgewise.forge.tasks.base import Dataset, Feeds
from edgewise.runtimes import runtime

MOST = 12


def exemplars(run: Run, *, config: TaskConfig, base: Path, note: Callable[[str], None]) -> tuple[Picture, ...]:
    """Return the inputs of the flips that say most. Where they cannot be read, `note` is told why."""
    if not run.flips or run.reference.path is None:
        return ()
    try:
        session = runtime(RuntimeName(run.reference.runtime)).load(Path(run.reference.path))
        dataset = open_split(TEST, config=config, inputs=session.inputs, folder=base)
        if dataset is None:
            return ()
        return tuple(picture(dataset, flip) for flip in run.flips[:MOST] if flip.index < len(dataset))
    except EdgewiseError as error:  # a page without pictures is better than none
        note(f"the report shows no pictures of the flips: {error.found}")
        return ()


def picture(dataset: Dataset, flip: FlipEvidence, *, distance: float | None = None) -> Picture:
    """Return one flip's input; its answers stand below it, and `distance`: alone where both answers read the same."""
    captions = [f"fp32: {flip.reference_answer}", f"variant: {flip.variant_answer}"]
    if distance is not None:
        captions = captions if flip.reference_answer != flip.variant_answer else []
        captions.append(f"distance to fp32: {distance:.3g}")
    if flip.target is not None:
        captions.append(f"label: {flip.target}")
    if flip.margin is not None:
        captions.append(f"fp32 margin: {flip.margin:.3f}")
    return Picture(index=flip.index, array=_shown(dataset[flip.index].feeds), captions=tuple(captions))


def _shown(feeds: Feeds) -> Array:
    """Return the input that looks most like something to see, without its batch axis."""
    arrays = [each[0] if each.ndim and each.shape[0] == 1 else each for each in feeds.values()]
    return max(arrays, key=lambda each: (each.ndim, each.size))
