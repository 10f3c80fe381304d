"""The peers: who they are, and one run of each as a subprocess that may fail.

What a run costs is measured from outside by `meter.py`, the same way as ours.
"""

from dataclasses import dataclass
from pathlib import Path

import environments
from runs import HERE, Run, last_json, metered, reason


@dataclass(frozen=True)
class Peer:
    """One way to call one tool."""

    name: str
    environment: str
    method: str
    transformers_only: bool = False
    # Tried in order until one works: (arguments, what to say about it).
    ways: tuple[tuple[tuple[str, ...], str], ...] = (((), ""),)


# The histogram calibration keeps every activation of every sample and wants equal lengths;
# where that fails it is given the samples in parts.
IN_PARTS = (((), ""), (("--stride", "8"), "samples in parts of 8"), (("--stride", "1"), "samples one by one"))

# The table has room for short names: `minmax` and `percentile` are per-channel, after quant_pre_process.
PEERS = (
    Peer("ort default", "onnxruntime", "default"),
    Peer("ort minmax", "onnxruntime", "minmax"),
    Peer("ort percentile", "onnxruntime", "percentile", ways=IN_PARTS),
    Peer("ort dynamic", "onnxruntime", "dynamic", transformers_only=True),
    Peer("ort dynamic/channel", "onnxruntime", "dynamic-per-channel", transformers_only=True),
    Peer("nncf", "nncf", "default"),
    Peer("nncf transformer", "nncf", "transformer", transformers_only=True),
)
TRANSFORMERS = {"minilm-stsb"}
SHORT = 80  # of the message of an earlier way


def for_task(task: str) -> list[Peer]:
    """Select the peers that apply to a task."""
    return [peer for peer in PEERS if not peer.transformers_only or task in TRANSFORMERS]


def run(peer: Peer, data: Path, folder: Path) -> Run:
    """Quantize `data/model.onnx` with a peer; everything it leaves is in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "model.onnx"
    script = HERE / f"peer_{peer.environment}.py"
    interpreter = environments.python(peer.environment)
    result, failed = Run(name=peer.name), list[str]()
    for arguments, remark in peer.ways:
        out.unlink(missing_ok=True)
        meter = metered([interpreter, script, peer.method, data / "model.onnx", data, out, *arguments], folder)
        result.cost(meter)
        if meter["exit_code"] == 0 and out.exists():
            result.made(out)
            result.said = last_json((folder / "stdout.txt").read_text(errors="replace"))
            said = result.said.get("note")
            result.note = "; ".join([*filter(None, [remark, said]), *(f"before: {text[:SHORT]}" for text in failed)])
            break
        failed.append(reason(meter, folder))
    else:
        result.failure = "; then ".join(dict.fromkeys(failed))
    return result
