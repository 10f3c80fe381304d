"""Which task a model and its data belong to: what the user said, or what the outputs show."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

import msgspec

from edgewise.contracts.task import TaskConfig, TaskKind
from edgewise.errors import TaskError
from edgewise.forge.tasks.anomaly import Anomaly, check_outputs
from edgewise.forge.tasks.base import Task
from edgewise.forge.tasks.classification import Classification
from edgewise.forge.tasks.detection import Detection, detection_layout
from edgewise.forge.tasks.embedding import Embedding
from edgewise.forge.tasks.generic import Generic
from edgewise.forge.tasks.language import Language
from edgewise.forge.tasks.speech import Speech
from edgewise.forge.tasks.user import is_user_task, load_user_task
from edgewise.forge.tasks.vocabulary import read_vocabulary
from edgewise.runtimes.base import TensorSpec

MIN_CLASSES = 2
_FLOATS = ("float32", "float16", "float64")
_NEXT = "name the task with --task or [task] kind"


class _Given(msgspec.Struct, frozen=True, kw_only=True):
    config: TaskConfig
    outputs: tuple[TensorSpec, ...]
    inputs: tuple[TensorSpec, ...]
    folder: Path


def choose_task(
    kind: str | None,
    *,
    config: TaskConfig,
    outputs: tuple[TensorSpec, ...],
    inputs: tuple[TensorSpec, ...],
    has_labels: bool,
    folder: Path,
    integer_labels: bool = True,
) -> Task:
    """Return the task of a kind, `file.py:Class` (relative to `folder`), or, for None, the inferred one.

    Without a kind a model with one float output `[batch, classes >= 2]` is a classifier, unless there are
    labels that are not integers; anything else is `Generic`, whose note says so. Raises TaskError where
    the kind is unknown or does not go with the outputs.
    """
    if kind is None:
        return _infer(outputs, integer_labels=integer_labels or not has_labels)
    if is_user_task(kind):
        return load_user_task(kind, folder=folder)
    if kind not in _TASKS:
        raise _unknown(kind)
    return _TASKS[kind](_Given(config=config, outputs=outputs, inputs=inputs, folder=folder))


def class_count(outputs: tuple[TensorSpec, ...]) -> int | None:
    """Return the classes of a first output `[batch, classes]` or `[batch, classes, 1, 1]`, None if it is not one."""
    if not outputs or outputs[0].dtype not in _FLOATS:
        return None
    shape = outputs[0].shape
    if len(shape) < MIN_CLASSES or shape[0] not in (None, 1) or any(axis != 1 for axis in shape[2:]):
        return None
    classes = shape[1]
    return classes if classes is not None and classes >= MIN_CLASSES else None


def _infer(outputs: tuple[TensorSpec, ...], *, integer_labels: bool) -> Task:
    classes = class_count(outputs)
    if len(outputs) == 1 and classes is not None and len(outputs[0].shape) == MIN_CLASSES and integer_labels:
        return Classification(classes=classes)
    why = "the labels are not integers" if classes is not None and not integer_labels else _text(outputs)
    return Generic(
        note=f"the task is not known ({why}): variants are compared with fp32 by their outputs alone, "
        f"without a score and without flips; {_NEXT}"
    )


def _classification(given: _Given) -> Task:
    classes = class_count(given.outputs)
    if classes is None:
        raise _unfit(given, "scores [batch, classes >= 2] as first output for the task 'classification'")
    return Classification(classes=classes)


def _detection(given: _Given) -> Task:
    options = given.config.detection
    return Detection(layout=detection_layout(options, outputs=given.outputs, inputs=given.inputs), options=options)


def _embedding(given: _Given) -> Task:
    """Take the output that sentence-transformers names so, else the first."""
    index = next((i for i, each in enumerate(given.outputs) if "sentence_embedding" in each.name), 0)
    if not _is_float(given.outputs[index : index + 1], ranks=(2, 3)):
        raise _unfit(given, "a vector [batch, d] or token vectors [batch, tokens, d] for the task 'embedding'")
    return Embedding(output=index)


def _speech(given: _Given) -> Task:
    name = given.config.text.tokenizer
    return Speech(vocabulary=None if name is None else read_vocabulary((given.folder / name).resolve()))


def _anomaly(given: _Given) -> Task:
    check_outputs(given.outputs, given.inputs)
    return Anomaly()


def _language(given: _Given) -> Task:
    if not _is_float(given.outputs[:1], ranks=(3,)):
        raise _unfit(given, "logits [batch, tokens, vocabulary] as first output for the task 'language'")
    return Language()


_TASKS: dict[str, Callable[[_Given], Task]] = {
    TaskKind.CLASSIFICATION: _classification,
    TaskKind.DETECTION: _detection,
    TaskKind.EMBEDDING: _embedding,
    TaskKind.SPEECH: _speech,
    TaskKind.ANOMALY: _anomaly,
    TaskKind.LANGUAGE: _language,
    Generic.kind: lambda _: Generic(),
}


def _is_float(outputs: tuple[TensorSpec, ...], *, ranks: tuple[int, ...]) -> bool:
    return len(outputs) == 1 and outputs[0].dtype in _FLOATS and len(outputs[0].shape) in ranks


def _unfit(given: _Given, required: str) -> TaskError:
    return TaskError(
        _text(given.outputs),
        required=required,
        next_step="choose another task with --task, or write your own (`file.py:Class`)",
    )


def _unknown(kind: str) -> TaskError:
    known = [str(each) for each in _TASKS]
    near = difflib.get_close_matches(kind, known, n=1)
    return TaskError(
        f"the task {kind!r} is unknown" + (f": did you mean {near[0]!r}?" if near else ""),
        required=f"one of {', '.join(known)}, or file.py:Class",
        next_step=_NEXT,
    )


def _text(outputs: tuple[TensorSpec, ...]) -> str:
    shapes = ", ".join(
        f"{each.name} {each.dtype}[{', '.join('any' if n is None else str(n) for n in each.shape)}]" for each in outputs
    )
    return f"the model's outputs are {shapes}" if outputs else "the model has no outputs"
