"""Runs NNCF's post-training quantization (in its own environment) and prints one JSON line.

    python peer_nncf.py METHOD MODEL DATA OUT          METHOD: default | transformer

Everything is NNCF's default except that it calibrates on all the samples that the others get
(its own default is the first 300), that a model below opset 13 is raised to 17 (below, NNCF
warns and goes per-tensor), and that `transformer` says so by model_type. Its telemetry is off:
NNCF_CI is the switch it reads, and it must be set before the import.
"""

import argparse
import json
import os
import resource
import time
from pathlib import Path

os.environ["NNCF_CI"] = "1"

import nncf
import onnx

import opset
from samples import samples


def main() -> None:
    """Quantize and report the seconds of the work itself and the process's peak memory."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("method", choices=["default", "transformer"])
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    start = time.perf_counter()
    model = opset.load(args.model)
    constants = {tensor.name for tensor in model.graph.initializer}
    names = [spec.name for spec in model.graph.input if spec.name not in constants]
    feeds = samples(args.data / "calibrate.npz", names)
    kind = nncf.ModelType.TRANSFORMER if args.method == "transformer" else None
    quantized = nncf.quantize(model, nncf.Dataset(feeds), subset_size=len(feeds), model_type=kind)
    onnx.save(quantized, args.out)
    report = {
        "work_seconds": round(time.perf_counter() - start, 3),
        "own_peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
