"""A task of the user's own: a class in a Python file, named as `file.py:Class`.

    class MyTask:
        metric = "dice"                      # optional; "score" otherwise
        higher_is_better = True              # optional

        def samples(self, split):            # "calibrate", "test", and "select" where the config names one
            yield {"input": array}, target   # feeds by input name, batch axis first; target may be None

        def score(self, outputs, targets):   # per sample the tuple of the model's outputs, and the target
            return 0.9

Optional methods: `predict(outputs)` returns what `score` shall get instead of a sample's whole outputs,
which are otherwise held in memory for a split; `divergence(reference, candidate)` is the distance of a
sample's outputs to fp32's (0 = equal), by default their normalised squared error.

The file is run: it is the user's own code, with the user's rights.
"""

from __future__ import annotations

import math
import runpy
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgewise.errors import EdgewiseError, TaskError
from edgewise.forge.tasks.base import Feeds, Outputs, Score
from edgewise.forge.tasks.generic import Generic

METHODS = ("samples", "score")
_GENERIC = Generic()


class UserTask:
    """The user's class behind the protocol of tasks. Made by `load_user_task`."""

    def __init__(self, path: Path, class_name: str) -> None:
        """Run the file and make one object of the class; raises TaskError."""
        self._path = path
        self._class_name = class_name
        self._own = _instance(path, class_name)
        self.metric = str(self._attribute("metric", str, default="score"))
        self.higher_is_better = bool(self._attribute("higher_is_better", bool, default=True))

    @property
    def kind(self) -> str:
        """`file.py:Class`."""
        return f"{self._path.name}:{self._class_name}"

    @property
    def path(self) -> Path:
        """The user's file."""
        return self._path

    def samples(self, split: str) -> Iterator[tuple[Any, Any]]:
        """Yield the user's (feeds, target) of a split; raises TaskError where the user's code fails."""
        found = self.call("samples", split)
        if found is None:
            return
        if not isinstance(found, Iterable):
            raise TaskError(
                f"{self.kind}: samples({split!r}) returned {type(found).__name__}",
                required="an iterable of (feeds, target)",
                next_step="yield the samples, or return a list",
            )
        walk = iter(found)
        while True:
            try:
                item = next(walk)
            except StopIteration:
                return
            except Exception as error:
                raise self._failed("samples", error) from error
            if not (isinstance(item, tuple) and len(item) == 2):
                raise TaskError(
                    f"{self.kind}: samples({split!r}) gave {type(item).__name__} instead of a pair",
                    required="(feeds, target), with None as target where there is no label",
                    next_step="yield feeds, target",
                )
            yield item

    def predict(self, outputs: Outputs, feeds: Feeds) -> Any:  # noqa: ARG002 - the protocol's
        """Return what the user's `predict` returns, or the outputs as they are."""
        return self.call("predict", outputs) if hasattr(self._own, "predict") else outputs

    def score(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Score | None:
        """Return the user's score; raises TaskError where it is not a finite number."""
        value = self.call("score", list(predictions), list(targets))
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise TaskError(
                f"{self.kind}: score returned {value!r}"[:200],
                required="a finite number",
                next_step="return the metric over all samples as a float",
            )
        return Score(value=number, metrics={self.metric: number})

    def flips(self, reference: Sequence[Any], candidate: Sequence[Any]) -> None:  # noqa: ARG002 - the protocol's
        """Return None: what the top answer is, is not known."""
        return

    def divergence(self, reference: Outputs, candidate: Outputs) -> float:
        """Return the user's divergence, or the normalised squared error of the outputs."""
        if not hasattr(self._own, "divergence"):
            return _GENERIC.divergence(reference, candidate)
        value = self.call("divergence", reference, candidate)
        if not isinstance(value, float | int) and not hasattr(value, "__float__"):
            raise TaskError(
                f"{self.kind}: divergence returned {type(value).__name__}",
                required="a number, 0 for equal outputs",
                next_step="return a float",
            )
        return float(value)

    def answer(self, prediction: Any) -> str:  # noqa: ARG002 - the protocol's
        """Return nothing: what the top answer is, is not known."""
        return ""

    def margin(self, outputs: Outputs) -> float | None:  # noqa: ARG002 - the protocol's
        """Return None: what the top answer is, is not known."""
        return None

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the user's object; whatever it raises becomes a TaskError with the user's line."""
        try:
            return getattr(self._own, method)(*arguments)
        except EdgewiseError:
            raise
        except Exception as error:
            raise self._failed(method, error) from error

    def __reduce__(self) -> tuple[object, ...]:
        """Travel to another process as the file's path: the class is loaded again there."""
        return UserTask, (self._path, self._class_name)

    def _attribute(self, name: str, kind: type, *, default: object) -> object:
        value: object = getattr(self._own, name, default)
        if isinstance(value, kind):
            return value
        raise TaskError(
            f"{self.kind}: {name} is {value!r}"[:200],
            required=f"a {kind.__name__}",
            next_step=f"set it like {name} = {default!r}",
        )

    def _failed(self, method: str, error: Exception) -> TaskError:
        return _failure(f"{self.kind}: {method} failed", error, self._path)


def is_user_task(kind: str | None) -> bool:
    """Return whether a kind names a class in a file."""
    return kind is not None and ":" in kind


def load_user_task(kind: str, *, folder: Path) -> UserTask:
    """Load `file.py:Class`, relative to `folder`; raises TaskError where the file or the class is not usable."""
    name, _, class_name = kind.rpartition(":")
    path = (folder / name).resolve()
    if not name.endswith(".py") or not class_name.isidentifier():
        raise TaskError(
            f"the task {kind!r} is not the name of a class in a file",
            required="file.py:Class",
            next_step="for example my_task.py:MyTask",
        )
    if not path.is_file():
        raise TaskError(
            f"{path} does not exist",
            required=f"the file of the task {kind!r}",
            next_step="the path is relative to the folder of edgewise.toml, or to the working directory with --task",
        )
    return UserTask(path, class_name)


def _instance(path: Path, class_name: str) -> Any:
    """Run a user's file, with its folder importable meanwhile, and make an object of its class."""
    sys.path.insert(0, str(path.parent))
    try:
        names = runpy.run_path(str(path), run_name=f"edgewise_task_{path.stem}")
    except (Exception, SystemExit) as error:
        raise _failure(f"{path} cannot be run", error, path) from error
    finally:
        sys.path.remove(str(path.parent))
    kind = names.get(class_name)
    if not isinstance(kind, type):
        classes = [name for name, value in names.items() if isinstance(value, type) and hasattr(value, "score")]
        raise TaskError(
            f"{path} has no class {class_name!r}" + (f", only {', '.join(classes)}" if classes else ""),
            required="the class of the task",
            next_step="check the name behind the colon",
        )
    missing = [name for name in METHODS if not callable(getattr(kind, name, None))]
    if missing:
        raise TaskError(
            f"{path}: the class {class_name} has no method {' and no method '.join(missing)}",
            required="samples(self, split) and score(self, outputs, targets)",
            next_step="add what is missing",
        )
    try:
        return kind()
    except Exception as error:
        raise _failure(f"{path}: {class_name}() failed", error, path) from error


def _failure(what: str, error: BaseException, path: Path) -> TaskError:
    """Return an error that names the exception and the last line of the user's file on the way to it."""
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    if lines:
        where = f" at {path.name}:{lines[-1].lineno}: {lines[-1].line}"
    else:
        where = f" at {path.name}:{error.lineno}" if isinstance(error, SyntaxError) else ""
    return TaskError(
        f"{what}: {type(error).__name__}: {error}{where}",
        required="a task that runs",
        next_step="correct that line; --debug shows the whole traceback",
    )
