"""Compares edgewise with other quantizers on the zoo's tasks: `make bench`.

    python benchmarks/run.py [--tasks T ...] [--zoo DIR] [--output DIR]

For every task: the peers quantize in environments of their own, ours by its command line, all
from the same calibration samples, one after another; then each model is scored by the zoo's
eval.py, and all of them are timed against fp32 in one process, in turns. Nothing a tool does
stops the benchmark: a failure is a row with its reason. See README.md beside this file.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

import environments
import machine
import ours
import peers
from runs import HERE, WORDS, Run, last_json
from score import score
from show import show
from verdict import claims

CACHE, RUNS = HERE / ".cache", HERE / ".runs"
TASKS = (
    "resnet8-cifar10",
    "dscnn-kws",
    "mobilenetv1-vww",
    "mobilenetv2-imagenet",
    "yolox-nano-coco128",
    "minilm-stsb",
)
ZOO_VARIABLE = "EDGEWISE_ZOO"
console, progress = Console(), Console(stderr=True, highlight=False)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    zoo = Path(os.environ.get(ZOO_VARIABLE) or HERE.parent.parent / "shared" / "zoo")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--zoo", type=Path, default=zoo, help=f"default: ${ZOO_VARIABLE}, else {zoo}")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    parser.add_argument("--edgewise", type=Path, default=Path(sys.executable).parent / "edgewise", help="our command")
    parser.add_argument("--efforts", nargs="*", default=ours.EFFORTS, help="of ours; none: the peers only")
    parser.add_argument("--rounds", type=int, default=80, help="of the timing")
    parser.add_argument("--reuse-peers", action="store_true", help="keep the peers' models and scores of the last run")
    return parser.parse_args()


def prepare(tasks: list[str], zoo: Path, judge: Path) -> None:
    """Fill the cache with the tasks' models and data."""
    if not (zoo / "eval.py").exists():
        raise SystemExit(f"no zoo in {zoo}: give its folder by --zoo or {ZOO_VARIABLE} (it has eval.py in it)")
    minilm = CACHE / "minilm-stsb" / "model.onnx"
    if "minilm-stsb" in tasks and not minilm.exists():  # the zoo has only the recipe for this one
        progress.print("exporting minilm-stsb")
        minilm.parent.mkdir(parents=True, exist_ok=True)
        part = minilm.with_suffix(".part")
        export = [environments.python("minilm"), zoo / "minilm-stsb" / "export.py", part]
        subprocess.run(export, check=True, stdout=subprocess.DEVNULL)
        part.rename(minilm)
    command = [judge, HERE / "zoo.py", "--zoo", zoo, "--cache", CACHE, *tasks]
    subprocess.run([str(part) for part in command], check=True)


def judged(run: Run, judge: Path, zoo: Path, task: str, data: Path, reference: dict[str, Any]) -> Run:
    """Score a run's model, if it has one."""
    if run.model is None:
        return run
    run.quality = score(judge, zoo, task, Path(run.model), data)
    if failure := run.quality.pop("failure", None):
        run.failure = failure
    else:
        run.quality["score_loss"] = round(reference["score"] - run.quality["score"], 6)
    return run


def make(task: str, args: argparse.Namespace, judge: Path, reference: dict[str, Any]) -> list[Run]:
    """Collect every tool's run of one task, scored."""
    data, rows = CACHE / task, list[Run]()
    for peer in peers.for_task(task):
        folder = RUNS / task / peer.name.replace(" ", "-").replace("/", "-")
        kept = folder / "run.json"
        if args.reuse_peers and kept.exists():
            rows.append(Run.load(kept))
            continue
        progress.print(f"{task}: {peer.name}")
        kept.unlink(missing_ok=True)
        rows.append(judged(peers.run(peer, data, folder), judge, args.zoo, task, data, reference))
        rows[-1].save(kept)
    for effort in args.efforts:
        progress.print(f"{task}: edgewise {effort}")
        run = ours.run(args.edgewise, effort, task, data, RUNS / task / f"edgewise-{effort}")
        rows.append(judged(run, judge, args.zoo, task, data, reference))
    return rows


def time_all(rows: list[Run], judge: Path, data: Path, rounds: int) -> dict[str, Any]:
    """Time every model that could be scored, in turns; return fp32's latency and the load."""
    variants = [part for run in rows if not run.failure for part in ("--variant", f"{run.name}={run.model}")]
    command = [str(part) for part in (judge, HERE / "speed.py", data, "--rounds", rounds, *variants)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    timed = last_json(done.stdout)
    for run in (run for run in rows if not run.failure):
        run.speed, run.latency_p50_ms = timed.get("speed", {}).get(run.name, {}), None
        if run.speed:
            run.latency_p50_ms = timed["latency_p50_ms"][run.name]
        else:
            run.failure = timed.get("failures", {}).get(run.name, "the timing failed, see above")[:WORDS]
    return {"latency_p50_ms": timed["latency_p50_ms"]["fp32"], "load_1min": timed["load_1min"]} if timed else {}


def main() -> None:
    """Run the tasks one by one; the JSON file is complete after each."""
    args = parse()
    args.zoo = args.zoo.resolve()
    args.output.mkdir(parents=True, exist_ok=True)
    judge = environments.python("judge")
    prepare(list(args.tasks), args.zoo, judge)
    started = datetime.now(UTC)
    document: dict[str, Any] = {"started": started.isoformat(timespec="seconds"), "machine": machine.describe()}
    document |= {"rounds": args.rounds, "peers_reused": args.reuse_peers, "tasks": {}}
    path = args.output / f"{started:%Y-%m-%dT%H%M%SZ}.json"
    for task in args.tasks:
        data = CACHE / task
        reference = score(judge, args.zoo, task, data / "model.onnx", data)
        if failure := reference.get("failure"):
            raise SystemExit(f"{task}: fp32 itself {failure}")
        rows = make(task, args, judge, reference)
        progress.print(f"{task}: timing {sum(not run.failure for run in rows)} models in turns")
        reference |= time_all(rows, judge, data, args.rounds)
        reference["size_mib"] = round((data / "model.onnx").stat().st_size / 2**20, 3)
        verdict = claims(task, rows)
        document["tasks"][task] = {
            "fp32": reference,
            "runs": [asdict(run) for run in rows],
            "verdict": [asdict(claim) for claim in verdict],
        }
        # Paths are told relative to this folder: the document is kept, and the machine's are nobody's matter.
        path.write_text(json.dumps(document, indent=1).replace(f"{HERE}/", "") + "\n")
        show(console, task, reference, rows, verdict)
    if set(args.tasks) == set(TASKS):
        (args.output / "latest.json").write_bytes(path.read_bytes())
    console.print(str(path), soft_wrap=True)


if __name__ == "__main__":
    main()
