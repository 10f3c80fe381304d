"""Two real models as one bundle: a voice detector with a state wakes a recogniser of words.

    python benchmarks/stages.py --vad silero_vad_16k_op15.onnx [--zoo DIR] [--folder DIR] [--effort fast]

The detector is silero-vad's model for 16 kHz (PyPI silero-vad 6.2.3, `silero_vad/data/`), its batch axis brought to
the front, its rate made a constant and its branches, which depend on nothing then, folded; the recogniser is the zoo's
dscnn-kws. Each is optimized and sealed, and both are joined, by the command line, as a user would; `--folder` keeps
was made and uses it again. Printed: the time of an item through the pipeline beside that of both models bare, in
turns, in this process and with a worker each; and how often the detector lets a frame through.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import soundfile
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgewise.bundle.read import Bundle
from edgewise.device.pipeline import End
from edgewise.device.pipeline.opened import BundlePipeline
from edgewise.runtimes.onnxruntime_ import session_options

FRAME, CONTEXT, RATE = 512, 64, 16000
ITEMS, WARM_UP = 1500, 100
VOICE = """\
deadline_ms = 200
outputs = ["vad.output", "words.p"]

[budget]
latency_p50_ms = 50

[stages.vad]
bundle = "vad-1.0.0.edgewise"
inputs = { input = "frame" }
state = { h = "h_next" }
mailbox = "latest(1)"

[stages.words]
bundle = "kws-1.0.0.edgewise"
inputs = { x = "features" }
when = { value = "vad.output", at_least = 0.5 }
"""
Floats = NDArray[np.float32]


def main() -> None:
    """Make the bundle where it is not there, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("EDGEWISE_ZOO") or str(Path(__file__).parents[2] / "shared" / "zoo")
    parser.add_argument("--vad", type=Path, required=True)
    parser.add_argument("--zoo", type=Path, default=Path(default))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--effort", default="fast")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        if not (folder / "voice").is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            make(folder, given)
        compare(folder, given.zoo)
        gate(folder, given.zoo)


def make(folder: Path, given: argparse.Namespace) -> None:
    """Optimize and seal both models, join them, and extract the bundle to `voice`."""
    (folder / "vad.onnx").write_bytes(batch_first(given.vad))
    frames(folder, given.zoo / "silero-vad")
    kws = given.zoo / "dscnn-kws"
    task = '[task]\nkind = "{}"\ncalibrate = "{}"\ntest = "{}"\n[search]\neffort = "{}"\nworkers = 1\n'
    for name, model, kind, data in (
        ("vad", folder / "vad.onnx", "generic", folder),
        ("kws", kws / "model.onnx", "classification", kws),
    ):
        description = f'[model]\npath = "{model}"\n' + task.format(
            kind, data / "calibrate.npz", data / "test.npz", given.effort
        )
        (folder / f"{name}.toml").write_text(description)
    (folder / "passphrase").write_text("of a key that signs nothing else\n")
    os.environ["EDGEWISE_PASSPHRASE"] = (folder / "passphrase").read_text().strip()
    edgewise(folder, "keys", "generate", "seal.pem")
    for name in ("vad", "kws"):
        edgewise(folder, "optimize", f"{name}.toml", "-o", name)
        edgewise(folder, "seal", name, "-o", f"{name}-1.0.0.edgewise", "--key", "seal.pem")
    (folder / "voice.toml").write_text(VOICE)
    edgewise(folder, "seal", "voice.toml", "-o", "voice-1.0.0.edgewise", "--key", "seal.pem")
    edgewise(folder, "bundle", "extract", "voice-1.0.0.edgewise", "voice", "--key", "seal.pub")
    with Bundle.open(folder / "voice-1.0.0.edgewise") as bundle:
        for name, manifest in bundle.stages.items():
            variants = ", ".join(each.name for each in manifest.variants)
            print(f"stage {name}: {manifest.chosen} of {variants}")
    print(f"bundle: {(folder / 'voice-1.0.0.edgewise').stat().st_size / 2**20:.2f} MiB")


def edgewise(folder: Path, *arguments: str) -> None:
    """Run our command there."""
    command = [str(Path(sys.executable).with_name("edgewise")), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}:\n{done.stderr}")


def batch_first(path: Path) -> bytes:
    """Return silero's model with the inputs `input` [1, 576] and `h` [1, 2, 128], no rate and no branches."""
    model = onnx.load(path)
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array(RATE, np.int64), "sr"))
    del graph.input[:], graph.output[:]
    floats = TensorProto.FLOAT
    graph.input.extend(
        [
            helper.make_tensor_value_info("input", floats, [1, CONTEXT + FRAME]),
            helper.make_tensor_value_info("h", floats, [1, 2, 128]),
        ]
    )
    graph.output.extend(
        [
            helper.make_tensor_value_info("output", floats, [1, 1]),
            helper.make_tensor_value_info("h_next", floats, [1, 2, 128]),
        ]
    )
    graph.node.insert(0, helper.make_node("Transpose", ["h"], ["state"], perm=[1, 0, 2]))
    graph.node.append(helper.make_node("Transpose", ["stateN"], ["h_next"], perm=[1, 0, 2]))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as scratch:
        options.optimized_model_filepath = str(Path(scratch) / "flat.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        flat = onnx.load(options.optimized_model_filepath)
    del flat.opset_import[:]
    flat.opset_import.extend([helper.make_opsetid("", 15)])
    data: bytes = flat.SerializeToString()
    return data


def framed(path: Path) -> list[Floats]:
    """Return the frames of a clip [1, 576], each with the end of the one before it."""
    sound, _ = soundfile.read(path, dtype="float32")
    padded = np.concatenate([np.zeros(CONTEXT, np.float32), sound])
    return [padded[None, at : at + CONTEXT + FRAME] for at in range(0, sound.size - FRAME + 1, FRAME)]


def frames(folder: Path, zoo: Path) -> None:
    """Write frames and states out of the middle of clips as calibrate.npz and test.npz."""
    session = bare(folder / "vad.onnx")
    clips = sorted((zoo / "test").glob("*.flac"))
    order = np.random.default_rng(0).permutation(len(clips))
    for name, part in (("calibrate", order[:80]), ("test", order[80:160])):
        kept: list[tuple[Floats, Floats]] = []
        for which in part:
            state = np.zeros((1, 2, 128), np.float32)
            for at, frame in enumerate(framed(clips[which])):
                if at in {8, 16}:
                    kept.append((frame, state))
                state = session.run(["h_next"], {"input": frame, "h": state})[0]
        inputs, states = (np.concatenate(column) for column in zip(*kept, strict=True))
        np.savez(folder / f"{name}.npz", input=inputs, h=states)


def bare(path: Path) -> Any:
    """Return a session with the options of the device's."""
    return onnxruntime.InferenceSession(str(path), session_options(threads=1), providers=["CPUExecutionProvider"])


def compare(folder: Path, zoo: Path) -> None:
    """Time items whose gate is open and closed against the bare models, in turns."""
    speech = framed(zoo / "silero-vad" / "test" / loud(zoo))
    features = np.load(zoo / "dscnn-kws" / "test.npz")["x"][:1]
    with BundlePipeline(folder / "voice") as here, BundlePipeline(folder / "voice", isolated=True) as there:
        names = [(each.described.name, each.variant) for each in here.stages]
        vad, words = (bare(folder / "voice" / stage / "variants" / name / "model.onnx") for stage, name in names)
        open_: list[list[float]] = []
        closed: list[list[float]] = []
        state = np.zeros((1, 2, 128), np.float32)
        for turn in range(-WARM_UP, ITEMS):
            frame = speech[turn % len(speech)]
            begin = time.perf_counter_ns()
            level, state = vad.run(None, {"input": frame, "h": state})
            after = time.perf_counter_ns()
            words.run(None, {"x": features})
            both = time.perf_counter_ns() - begin
            row = [both / 1e3, (after - begin) / 1e3]
            for pipeline in (here, there):
                begin = time.perf_counter_ns()
                ticket = pipeline.submit({"frame": frame, "features": features}, deadline_ms=1000)
                end = ticket.result().end
                row.append((time.perf_counter_ns() - begin) / 1e3)
                if end is not End.OUT:
                    sys.exit(f"an item was lost: {ticket.ended}")
            if turn >= 0:
                (open_ if level[0, 0] >= 0.5 else closed).append(row)
    for name, rows, base in (("open", open_, 0), ("closed", closed, 1)):
        if rows:
            table = np.array(rows)
            bare_us = np.median(table[:, base])
            for at, where in ((2, "this process"), (3, "a worker each")):
                more = np.median(table[:, at] - table[:, base])
                p99 = np.percentile(table[:, at], 99)
                print(
                    f"gate {name}, {where}: bare {bare_us:.0f} us, an item {np.median(table[:, at]):.0f} us "
                    f"({more:+.0f}), p99 {p99:.0f} us ({len(rows)} items)"
                )


def loud(zoo: Path) -> str:
    """Return a clip with speech."""
    with (zoo / "silero-vad" / "labels.csv").open(encoding="utf-8") as file:
        return next(row["file"] for row in csv.DictReader(file) if row["label"] == "1")


def gate(folder: Path, zoo: Path) -> None:
    """Count the frames that the detector lets through, in clips with speech and without."""
    features = np.load(zoo / "dscnn-kws" / "test.npz")["x"][:1]
    with (zoo / "silero-vad" / "labels.csv").open(encoding="utf-8") as file:
        clips = [(row["file"], row["label"]) for row in csv.DictReader(file)]
    passed: dict[str, list[int]] = {"1": [], "0": []}
    with BundlePipeline(folder / "voice") as opened:
        for name, label in clips[::4]:
            for at, frame in enumerate(framed(zoo / "silero-vad" / "test" / name)):
                ticket = opened.submit({"frame": frame, "features": features}, deadline_ms=1000, begins=at == 0)
                if ticket.result().end is End.OUT:
                    passed[label].append("words.p" in opened.outputs_of(ticket))
    for label, words in (("1", "with speech"), ("0", "without")):
        found = passed[label]
        print(f"frames of clips {words} that come to the recogniser: {np.mean(found):.1%} of {len(found)}")


if __name__ == "__main__":
    main()
