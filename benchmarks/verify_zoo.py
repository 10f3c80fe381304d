"""Runs `edgewise verify` on the zoo's models: what it costs and what it finds.

    python benchmarks/verify_zoo.py [--tasks T ...] [--suites quick full] [--variants fp32 int8]
    python benchmarks/verify_zoo.py --missing                    # only rows that are not kept yet
    python benchmarks/verify_zoo.py --show                       # the table of what was kept, without a run

Per task and suite two verifications, one after another: fp32 against itself, which has to pass everything, and an
int8 variant: the one that `edgewise optimize` chose, verified as a run (so that it is rebuilt from its recipe too),
or ONNX Runtime's per-channel min-max on the tasks where ours chooses no integers. Data and runs are those of run.py.
Every row is kept in .runs/verify/TASK/ as soon as it is there.
"""

import argparse
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import environments
import machine
import ours
import peers
from run import CACHE, RUNS, TASKS, ZOO_VARIABLE, prepare
from runs import HERE, last_json, metered, reason
from score import kind

FOLDER = RUNS / "verify"
# Elsewhere ours keeps fp32, folded: see the results beside this file.
INTEGERS = ("resnet8-cifar10", "mobilenetv2-imagenet", "minilm-stsb")
console, progress = Console(width=200), Console(stderr=True, highlight=False)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    zoo = Path(os.environ.get(ZOO_VARIABLE) or HERE.parent.parent / "shared" / "zoo")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--suites", nargs="+", choices=("quick", "full"), default=("quick", "full"))
    parser.add_argument("--variants", nargs="+", choices=("fp32", "int8"), default=("fp32", "int8"))
    parser.add_argument("--zoo", type=Path, default=zoo, help=f"default: ${ZOO_VARIABLE}, else {zoo}")
    parser.add_argument("--edgewise", type=Path, default=Path(sys.executable).parent / "edgewise", help="our command")
    parser.add_argument("--missing", action="store_true", help="leave out what has a kept row with a verdict")
    parser.add_argument("--show", action="store_true", help="print the table of the kept rows")
    return parser.parse_args()


def is_quantized(chosen: dict[str, Any]) -> bool:
    """Whether a run chose a variant with integers in it."""
    regions = (chosen.get("recipe") or {}).get("regions") or []
    return any(str(each.get("format", "")).startswith("int") for each in regions)


def int8(task: str, edgewise: Path) -> tuple[str, list[object]] | None:
    """Return the name of the int8 variant and what `verify` is told of it; made once."""
    data, folder = CACHE / task, RUNS / task / "edgewise-default"
    if task in INTEGERS:
        if not (folder / "run" / "evidence.json").exists():
            progress.print(f"{task}: edgewise optimize")
            ours.run(edgewise, "default", task, data, folder)
        if is_quantized(last_json((folder / "stdout.txt").read_text(errors="replace")).get("chosen") or {}):
            return "edgewise", [folder / "run"]
    made = RUNS / task / "ort-minmax"
    if not (made / "model.onnx").exists():
        progress.print(f"{task}: onnxruntime's quantize_static")
        peers.run(next(each for each in peers.PEERS if each.name == "ort minmax"), data, made)
    return ("ort minmax", [made / "model.onnx"]) if (made / "model.onnx").exists() else None


def verified(task: str, suite: str, variant: str, edgewise: Path) -> dict[str, Any]:
    """Run one verification and keep its row."""
    data = CACHE / task
    folder = FOLDER / task / f"{variant}-{suite}"
    folder.mkdir(parents=True, exist_ok=True)
    name, given = ("fp32", [data / "model.onnx"]) if variant == "fp32" else int8(task, edgewise) or ("none", [])
    row: dict[str, Any] = {"task": task, "suite": suite, "variant": name, "load": round(os.getloadavg()[0], 1)}
    if given:
        progress.print(f"{task}: verify {name}, {suite}")
        if str(given[0]).endswith(".onnx"):
            given += ["--reference", data / "model.onnx", "--data", data, *ours.TASK_ARGUMENTS[kind(task)]]
        options = ["--suite", suite, "--json", "--output", folder / "verification"]
        meter = metered([edgewise, "verify", *given, *options], folder)
        row |= meter | summary(last_json((folder / "stdout.txt").read_text(errors="replace")))
        if "verdict" not in row:
            row["failure"] = reason(meter, folder)
    row["commit"] = machine.commit()
    (folder / "row.json").write_text(json.dumps(row, indent=1))
    return row


def summary(document: dict[str, Any]) -> dict[str, Any]:
    """Return what the table shows of a document."""
    if "sections" not in document:
        return {}
    findings = [each for section in document["sections"] for each in section["findings"]]
    return {
        "verdict": document["verdict"],
        "samples": document["samples"],
        "parts": document["seconds"],
        "grades": dict(Counter(each["grade"] for each in findings)),
        "troubles": [
            [each["grade"], each["name"], each.get("subject") or "", each["detail"]]
            for each in findings
            if each["grade"] in {"fail", "flag", "unknown"}
        ],
    }


def rows_kept() -> list[dict[str, Any]]:
    """Return all kept rows in the order of the tasks."""
    rows = [json.loads(path.read_text()) for path in FOLDER.glob("*/*/row.json")]
    return sorted(rows, key=lambda row: (TASKS.index(row["task"]), row["suite"] != "quick", row["variant"] != "fp32"))


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table, and what is not a pass."""
    table = Table()
    columns = ("task", "suite", "variant", "wall s", "CPU s", "load", "peak MiB", "verdict", "not passed")
    for head in columns:
        table.add_column(head, overflow="fold")
    for row in rows:
        counts = Counter(f"{grade} {name}" for grade, name, *_ in row.get("troubles", ()))
        said = ", ".join(name if count == 1 else f"{name} x{count}" for name, count in counts.items())
        cells = [f"{row.get(key, 0):.0f}" for key in ("wall_seconds", "cpu_seconds")]
        verdict = row.get("verdict", "none")
        table.add_row(row["task"], row["suite"], row["variant"], *cells, f"{row['load']}",
                      f"{row.get('peak_tree_mib', 0):.0f}", verdict, row.get("failure", said))  # fmt: skip
    console.print(table)


def main() -> None:
    """Run what was asked for; print the table."""
    args = parse()
    if args.show:
        show(rows_kept())
        return
    prepare(list(args.tasks), args.zoo.resolve(), environments.python("judge"))
    rows = []
    for task in args.tasks:
        for suite in args.suites:
            for variant in args.variants:
                kept = FOLDER / task / f"{variant}-{suite}" / "row.json"
                if args.missing and kept.exists() and "verdict" in json.loads(kept.read_text()):
                    continue
                rows.append(verified(task, suite, variant, args.edgewise))
                show(rows[-1:])
    show(rows)


if __name__ == "__main__":
    main()
