"""Runs onnxruntime's own quantizer (in its own environment) and prints one JSON line.

    python peer_onnxruntime.py METHOD MODEL DATA OUT [--stride N]

METHOD: default | minmax | percentile | dynamic | dynamic-per-channel. `default` passes nothing
but the data. `minmax` and `percentile` are its documented best way on this class of processor:
quant_pre_process first (at opset 17 if the model's is below 13, which per-channel weights
need), per-channel s8 weights, u8 activations. `--stride` reads the data in parts, which bounds
the histogram calibration's memory (it keeps every activation otherwise) and lets it take
sentences of different lengths.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

import onnxruntime as ort
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantType,
    quant_pre_process,
    quantize_dynamic,
    quantize_static,
)

import opset
from samples import Feed, samples


class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped library
    """The calibration samples one by one; a part of them after set_range()."""

    def __init__(self, model: str, data: Path) -> None:
        """Read all samples."""
        session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.feeds = samples(data / "calibrate.npz", [spec.name for spec in session.get_inputs()])
        self.set_range(0, len(self.feeds))

    def __len__(self) -> int:
        """Count all samples, whatever the range."""
        return len(self.feeds)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Go on from `start_index`."""
        self.rest = iter(self.feeds[start_index:end_index])

    def get_next(self) -> Feed | None:
        """Return the next sample of the range."""
        return next(self.rest, None)


def static(args: argparse.Namespace, work: Path) -> str:
    """quant_pre_process, then quantize_static with per-channel weights; returns a remark."""
    ready, remark = str(work / "ready.onnx"), ""
    try:
        quant_pre_process(opset.load(args.model), ready)
    except Exception as error:  # noqa: BLE001 (that is all it raises)
        remark = f"quant_pre_process with auto_merge, for without it: {error}"
        quant_pre_process(opset.load(args.model), ready, auto_merge=True)
    method = CalibrationMethod.MinMax if args.method == "minmax" else CalibrationMethod.Percentile
    quantize_static(
        ready,
        str(args.out),
        Reader(ready, args.data),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=method,
        extra_options={"CalibStridedMinMax": args.stride} if args.stride else None,
    )
    return remark


def main() -> None:
    """Quantize and report the seconds of the work itself and the process's peak memory."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("method", choices=["default", "minmax", "percentile", "dynamic", "dynamic-per-channel"])
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--stride", type=int)
    args = parser.parse_args()
    start, remark = time.perf_counter(), ""
    if args.method == "default":
        quantize_static(str(args.model), str(args.out), Reader(str(args.model), args.data))
    elif args.method.startswith("dynamic"):
        quantize_dynamic(str(args.model), str(args.out), per_channel=args.method == "dynamic-per-channel")
    else:
        with tempfile.TemporaryDirectory() as work:
            os.chdir(work)  # quant_pre_process leaves files in the current folder when it fails
            remark = static(args, Path(work))
    report = {
        "work_seconds": round(time.perf_counter() - start, 3),
        "own_peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "note": remark,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
