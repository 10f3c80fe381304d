"""Scores a model on a task: through the zoo's eval.py, and for embeddings by cosine besides.

Which figure decides depends on the task's kind: flips for classification, the loss of mAP
for detection, the mean cosine to fp32 for embeddings.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runs import HERE, WORDS, last_json

KIND = {"yolox-nano-coco128": "detection", "minilm-stsb": "embedding"}  # every other: classification


@dataclass(frozen=True)
class Figure:
    """The figure of quality that decides between two tools."""

    key: str
    title: str
    form: str
    more_is_better: bool = False

    def no_worse(self, mine: float, theirs: float) -> bool:
        """Whether `mine` is at least as good."""
        return mine >= theirs if self.more_is_better else mine <= theirs


DECIDES = {
    "classification": Figure("flip_rate", "flips", "{:.2%}"),
    "detection": Figure("score_loss", "mAP lost", "{:.4f}"),
    "embedding": Figure("mean_cosine", "mean cosine", "{:.5f}", more_is_better=True),
}


def kind(task: str) -> str:
    """One of: classification, detection, embedding."""
    return KIND.get(task, "classification")


def _ask(command: list[object]) -> dict[str, Any]:
    """Run a command; return the JSON it prints, or its last words as `failure`."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    found = last_json(done.stdout)
    if done.returncode or not found:
        words = (done.stderr.strip() or "no output").splitlines()[-1]
        return {"failure": f"could not be scored: {words[:WORDS]}"}
    return found


def score(judge: Path, zoo: Path, task: str, model: Path, data: Path) -> dict[str, Any]:
    """Measure every figure of quality of `model`, flips and cosines against `data/model.onnx`."""
    reference = data / "model.onnx"
    command: list[object] = [judge, zoo / "eval.py", task, "--model", model]
    if kind(task) == "classification" and model != reference:
        command += ["--reference", reference]
    result = _ask(command)
    if kind(task) == "embedding" and model != reference and "failure" not in result:
        result |= _ask([judge, HERE / "embed.py", data, "--model", model, "--reference", reference])
    return result
