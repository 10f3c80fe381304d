"""The process that builds a torch module and exports it: a Question on stdin, an Answer on stdout."""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np

from edgewise.errors import EdgewiseError, ModelError
from edgewise.forge.importing.messages import Answer, Question, Refusal, serve
from edgewise.forge.importing.torch_build import built, in_order, reason
from edgewise.runtimes.base import require
from edgewise.runtimes.onnxruntime_ import OnnxRuntime

EXPORTED = "original.onnx"

_OPSET = 17
_TOLERANCE = 1e-3
_MOST_MIXED = 4
_SEED = 5


class _Traced(msgspec.Struct, frozen=True):
    """A module in evaluation mode with inputs on which it runs, and the names of its outputs."""

    name: str
    module: Any
    feeds: dict[str, Any]
    outputs: tuple[str, ...]


def answer(question: Question) -> Answer:
    """Build the module, run it, export it, and run the export against it."""
    sys.path.insert(0, question.base)
    try:
        with warnings.catch_warnings():
            # The module's author has seen them; here they would only bury the message that counts.
            warnings.simplefilter("ignore")
            return Answer(notes=_export(question))
    except EdgewiseError as error:
        return Answer(refusal=Refusal.of(error))


def _export(question: Question) -> tuple[str, ...]:
    torch = require("torch", extra="train")
    torch.manual_seed(_SEED)
    # Its fused kernels for inference have no form in ONNX; the plain ones compute the same.
    torch.backends.mha.set_fastpath_enabled(False)
    module = built(question.model, torch, base=question.base).to("cpu").eval()
    shapes = in_order(question.model, module, question.inputs)
    path = Path(question.folder) / EXPORTED
    with torch.no_grad():
        traced = _first_run(question.model, torch, module, shapes)
        _write(torch, traced, path, free_batch=True)
        _check(torch, traced, traced.feeds, path)
        if _takes_two(torch, traced, path):
            return ()
        _write(torch, traced, path, free_batch=False)
    return ("the batch stays as given, for the module does not run with another one",)


def _first_run(name: str, torch: ModuleType, module: Any, shapes: Mapping[str, tuple[int, ...]]) -> _Traced:
    """Find types of the inputs on which the module runs: numbers, else whole numbers, else some of each."""
    first: Exception | None = None
    for kinds in _kinds(torch, len(shapes)):
        feeds = {each: _random(torch, shape, kind) for (each, shape), kind in zip(shapes.items(), kinds, strict=True)}
        try:
            outputs = _named(torch, module(*feeds.values()))
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            first = first or error
            continue
        if not outputs:
            raise ModelError(
                f"{name}: forward returned no tensors",
                required="a tensor, or a tuple, list or dict of tensors",
                next_step="return what is to be computed",
            )
        return _Traced(name, module, feeds, tuple(outputs))
    raise ModelError(
        f"{name}: forward failed: {reason(first) if first else 'no inputs'}",
        required=f"a module that runs on {', '.join(f'{each} {list(shape)}' for each, shape in shapes.items())}",
        next_step="correct the shapes in [model.inputs], or the module",
    ) from first


def _kinds(torch: ModuleType, count: int) -> Iterator[tuple[Any, ...]]:
    yield (torch.float32,) * count
    yield (torch.int64,) * count
    if 1 < count <= _MOST_MIXED:
        yield from list(itertools.product((torch.float32, torch.int64), repeat=count))[1:-1]


def _random(torch: ModuleType, shape: tuple[int, ...], kind: Any) -> Any:
    return torch.randn(*shape) if kind == torch.float32 else torch.ones(*shape, dtype=kind)


def _named(torch: ModuleType, outputs: Any) -> dict[str, Any]:
    """Name the tensors that forward returned, as they will be named in ONNX."""
    if isinstance(outputs, torch.Tensor):
        return {"output": outputs}
    if isinstance(outputs, Mapping):
        return {str(key): value for key, value in outputs.items() if isinstance(value, torch.Tensor)}
    if isinstance(outputs, tuple | list):
        return {f"output_{index}": value for index, value in enumerate(outputs) if isinstance(value, torch.Tensor)}
    return {}


def _write(torch: ModuleType, traced: _Traced, path: Path, *, free_batch: bool) -> None:
    axes = {name: {0: "batch"} for name in (*traced.feeds, *traced.outputs)} if free_batch else None
    # An output may have the name of an input, which ONNX does not allow.
    outputs = [f"{name}_out" if name in traced.feeds else name for name in traced.outputs]
    try:
        torch.onnx.export(
            traced.module,
            tuple(traced.feeds.values()),
            str(path),
            input_names=list(traced.feeds),
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )
    except Exception as error:
        raise ModelError(
            f"{traced.name}: the export to ONNX failed: {reason(error)}",
            required=f"a module that torch.onnx.export can trace at opset {_OPSET}",
            next_step="try torch.onnx.export(module, inputs, 'model.onnx', dynamo=False), "
            "or export it another way, and give the ONNX file",
        ) from error


def _check(torch: ModuleType, traced: _Traced, feeds: Mapping[str, Any], path: Path) -> None:
    """Refuse an export that computes something else, as it may where the code branches on values."""
    expected = _named(torch, traced.module(*feeds.values()))
    session = OnnxRuntime().load(path)
    found = session.run({each.name: feeds[each.name].numpy() for each in session.inputs})
    for (name, mine), theirs in zip(expected.items(), found, strict=True):
        reference = mine.numpy()
        largest = max(float(np.abs(reference).max(initial=0.0)), 1e-6)
        if reference.shape != theirs.shape or float(np.abs(reference - theirs).max(initial=0.0)) > _TOLERANCE * largest:
            raise ModelError(
                f"{traced.name}: exported to ONNX, its output {name!r} is another one",
                required="a module that can be traced: whose path does not depend on the values",
                next_step="look at the warnings of torch.onnx.export, and take branches on values out of forward",
            )


def _takes_two(torch: ModuleType, traced: _Traced, path: Path) -> bool:
    """Say whether module and export run with twice the batch, and agree."""
    twice = {name: torch.cat([each, each]) for name, each in traced.feeds.items()}
    try:
        _check(torch, traced, twice, path)
    except Exception:  # noqa: BLE001 - whatever it is, this module does not take another batch
        return False
    return True


if __name__ == "__main__":
    serve(answer)
