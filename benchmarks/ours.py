"""One run of `edgewise optimize`, by its command line and its JSON document only.

Nothing of edgewise is imported: what is measured is what a user gets.
"""

import shutil
from pathlib import Path

from runs import Run, last_json, metered, reason
from score import kind

# What the command is told about a task beyond the data; class scores it recognises by itself.
TASK_ARGUMENTS: dict[str, list[str]] = {
    "classification": [],
    "detection": ["--task", "detection"],
    "embedding": ["--task", "embedding"],
}
EFFORTS = ("default", "fast")
FITS, NOTHING_FITS = 0, 3  # exit codes that come with a document
JUDGED_RUNTIME = "onnxruntime"
JUDGED = ["--runtime", JUDGED_RUNTIME, "--threads", "1"]  # what every model is scored and timed with


def run(edgewise: Path, effort: str, task: str, data: Path, folder: Path) -> Run:
    """Optimize `data/model.onnx`; the run folder is emptied first, so that nothing is resumed."""
    result = Run(name=f"edgewise {effort}", ours=True)
    if not edgewise.exists():
        result.failure = f"{edgewise} does not exist: install edgewise there, or give --edgewise"
        return result
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [edgewise, "optimize", data / "model.onnx", "--data", data, "--target", "local"]
    options = [
        "--output",
        folder / "run",
        "--json",
        "--fresh",
        "--effort",
        effort,
        *JUDGED,
        *TASK_ARGUMENTS[kind(task)],
    ]
    meter = metered([*command, *options], folder)
    result.cost(meter)
    document = last_json((folder / "stdout.txt").read_text(errors="replace"))
    result.said = (document.get("chosen") or {}) | {"seconds": document.get("seconds")}
    if meter["exit_code"] not in {FITS, NOTHING_FITS} or not result.said.get("path"):
        error = document.get("error") or {}
        result.failure = "; ".join(filter(None, (error.get("found"), error.get("next_step")))) or reason(meter, folder)
        return result
    result.note = f"chose {result.said.get('name', 'a variant without a name')}"
    if meter["exit_code"] == NOTHING_FITS:
        result.note += "; nothing fits the budget (exit 3), this is the closest"
    # A relative path is taken from the run folder, else from where the command was started.
    path = Path(result.said["path"])
    path = next((p for p in (folder / "run" / path, path.absolute()) if p.exists()), path)
    if not path.is_file():
        result.failure = f"the document names {path}, which is no file"
    elif (runtime := result.said.get("runtime", JUDGED_RUNTIME)) != JUDGED_RUNTIME:
        result.failure = f"chosen for {runtime}; only {JUDGED_RUNTIME} is scored and timed here"
    else:
        result.made(path)
    return result
