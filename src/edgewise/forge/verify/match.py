"""Find the form of fp32 that a variant was made from: as given, as ONNX Runtime folds it, or as imported here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import onnx

from edgewise.errors import EdgewiseError
from edgewise.forge.graph import Graph
from edgewise.forge.regions import Region, regions_of
from edgewise.forge.verify.points import Point, points
from edgewise.forge.verify.rescaled import rescaled
from edgewise.forge.verify.weights import paired
from edgewise.runtimes.onnxruntime_ import optimised


class Match(msgspec.Struct, frozen=True):
    """A form of fp32, and where the variant can be compared with it."""

    reference: Graph
    regions: tuple[Region, ...]
    variant: Graph
    points: tuple[Point, ...]
    rescaled: int = 0
    """Classes of channels in which this form is rescaled as the variant is (see `rescaled`)."""


def match(reference: Path, normalised: Path, variant: Graph) -> Match:
    """Return the form with most points and weights in common; the imported one where forms are equally close."""
    best: tuple[int, Match] | None = None
    for form in forms(reference, normalised):
        graph, classes = rescaled(form, variant) or (form, 0)
        regions = regions_of(graph)
        found = Match(graph, regions, variant, points(graph, regions, variant), classes)
        score = len(found.points) + sum(other is not None for _, other in paired(graph, variant))
        if best is None or score > best[0]:
            best = score, found
    if best is None:
        raise ValueError(normalised)
    return best[1]


def load(path: Path) -> Graph:
    """Read a model file, its external data too."""
    return Graph(onnx.load(str(path)))


def forms(reference: Path, normalised: Path) -> tuple[Graph, ...]:
    """Return the forms of fp32; one that cannot be made is left out, for the imported one always can."""
    return tuple(_forms(reference, normalised))


def _forms(reference: Path, normalised: Path) -> Iterator[Graph]:
    yield load(normalised)
    try:
        yield Graph(onnx.shape_inference.infer_shapes(onnx.load(str(reference))))
        yield Graph(onnx.shape_inference.infer_shapes(onnx.load_model_from_string(optimised(reference))))
    except (EdgewiseError, ValueError, RuntimeError, onnx.shape_inference.InferenceError):
        return
