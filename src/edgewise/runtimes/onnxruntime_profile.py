"""Read ONNX Runtime's profile: which kernels ran, for how long, and where they come from.

What the profile says, found by experiment with ONNX Runtime 1.32 (resnet8, MobileNetV2, MiniLM):

* One event per node and run, `<node name>_kernel_time`, in the nodes' order of execution; a
  `model_run` event closes each run. A node without a name is called `<operator>_<index>`.
* `dur` is floor(microseconds): kernels of a few microseconds lose half of one on average. So the
  *midmean* (mean of the middle half of the rounds) plus 0.5 is taken, not the median.
* Describing its inputs and outputs to the profile costs 1-3 us *inside* the time of every kernel,
  more than a Reshape takes. That is measured and taken off; see `_profiler_cost`.
* Node names are those of the optimised graph, but not always unique (several `ReorderOutput`), so
  the k-th kernel of a name belongs to the k-th node of that name in the file.
* Fused nodes are named by rules; see `node_names.Origins`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from edgewise.errors import ExecutionError
from edgewise.runtimes.base import KernelTime
from edgewise.runtimes.node_names import Node, Origins, read_nodes

_SUFFIX = "_kernel_time"

_QUANTIZED_KINDS = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "EmbedLayerNormalizationInt8",
        "GatherBlockQuantized",
        "MatMulBnb4",
        "MatMulInteger",
        "MatMulInteger16",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "NhwcMaxPool",
        "QAttention",
        "QEmbedLayerNormalization",
        "QGemm",
        "QMoE",
        "QOrderedMatMul",
    }
)
"""Operators that compute on integers besides those called QLinear*."""


_CONTAINERS = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_LOST_US = 0.5
"""What rounding down to whole microseconds takes off a time on average."""
_MAX_COST_US = 4.0
_SHORTEST_US = 0.3
"""What the executor takes for a kernel that does nothing, from end-to-end times of longer and shorter chains."""


class _Arguments(msgspec.Struct, frozen=True):
    op_name: str = ""
    node_index: str = ""


class _Event(msgspec.Struct, frozen=True):
    cat: str
    name: str
    ts: int = 0
    dur: int = 0
    args: _Arguments = _Arguments()


_Key = tuple[str, str, str]
"""Node name, operator, node index: one node of the optimised graph."""


class _Run(msgspec.Struct, frozen=True):
    kernels: dict[_Key, float]
    total_us: float


def runs_quantized(kind: str) -> bool:
    """Return whether an operator computes on quantized numbers (QuantizeLinear and its inverse do not)."""
    return kind.startswith("QLinear") or kind in _QUANTIZED_KINDS


def kernel_times(
    trace: bytes, *, optimised: bytes, given: bytes, plain_us: Sequence[float], profiled_us: Sequence[float]
) -> tuple[KernelTime, ...]:
    """Return the kernels of a profile in execution order.

    `trace` is the profile (JSON), `optimised` the graph as the session saved it, `given` the graph
    that was loaded. `profiled_us` are the times of the profile's last runs as the caller saw them,
    `plain_us` those of the runs without the profiler that alternated with them. Raises
    ExecutionError where the profile lost runs, which happens when it passed a million events.
    """
    runs = list(_runs(trace))[-len(plain_us) :]
    if len(runs) < len(plain_us):
        raise ExecutionError("the runtime's profile lost events", next_step="profile with fewer rounds")
    cost_us = _profiler_cost(runs, plain_us, profiled_us)
    keys = list(dict.fromkeys(key for run in runs for key in run.kernels))
    nodes = _match(keys, read_nodes(optimised))
    origins = Origins(read_nodes(given))
    kernels = []
    for key in keys:
        # A branch that was not taken in a run cost nothing in it.
        time_us = max(_midmean([run.kernels.get(key, 0.0) for run in runs]) - cost_us, _SHORTEST_US)
        node = nodes.get(key)
        inputs, outputs = (node.inputs, node.outputs) if node else ((), ())
        kernels.append(
            KernelTime(
                name=key[0],
                kind=key[1],
                time_us=time_us,
                inputs=inputs,
                outputs=outputs,
                runs_quantized=runs_quantized(key[1]),
                origins=origins.of(key[0], outputs),
            )
        )
    return tuple(kernels)


def _runs(trace: bytes) -> Iterator[_Run]:
    """Yield every run; repeats of a kernel in a loop are summed."""
    events: list[_Event] = []
    for event in msgspec.json.decode(trace, type=list[_Event]):
        if event.cat == "Node" and event.name.endswith(_SUFFIX):
            events.append(event)
        elif event.name == "model_run":
            yield _Run(kernels=_own_times(events), total_us=event.dur + _LOST_US)
            events = []


def _profiler_cost(runs: Sequence[_Run], plain_us: Sequence[float], profiled_us: Sequence[float]) -> float:
    """Return what the profiler added to each kernel, in microseconds.

    In one round, the kernels' sum minus the time of the run beside it is the profiler's cost times
    the number of kernels. What a call costs outside of the runtime's own run (the binding) is seen
    in the profiled run and taken off the plain one.
    """
    excess = []
    for run, plain, profiled in zip(runs, plain_us, profiled_us, strict=True):
        binding = profiled - run.total_us
        excess.append((sum(run.kernels.values()) - (plain - binding)) / max(len(run.kernels), 1))
    # On a busy machine the two runs of a round differ by more than the profiler costs.
    return float(np.clip(np.median(excess), 0.0, _MAX_COST_US))


def _own_times(events: Sequence[_Event]) -> dict[_Key, float]:
    """Return the time of each node without that of the nodes inside it.

    Events stand in the order of their ends, so what ran inside a control-flow node stands right
    before it and began after it did.
    """
    times: dict[_Key, float] = defaultdict(float)
    finished: list[tuple[int, float]] = []
    for event in events:
        whole = event.dur + _LOST_US
        own = whole
        if event.args.op_name in _CONTAINERS:
            while finished and finished[-1][0] >= event.ts:
                own -= finished.pop()[1]
        finished.append((event.ts, whole))
        key = (event.name.removesuffix(_SUFFIX), event.args.op_name, event.args.node_index)
        times[key] += max(own, 0.0)
    return dict(times)


def _match(keys: Sequence[_Key], nodes: Sequence[Node]) -> dict[_Key, Node]:
    """Find the node of each kernel: the k-th of a name and operator in either order of execution."""
    waiting: dict[tuple[str, str], list[Node]] = defaultdict(list)
    for node in reversed(nodes):
        waiting[node.name, node.kind].append(node)
    found: dict[_Key, Node] = {}
    for key in keys:
        name, kind, index = key
        given = "" if name == f"{kind}_{index}" and not waiting.get((name, kind)) else name
        if candidates := waiting.get((given, kind)):
            found[key] = candidates.pop()
    return found


def _midmean(values: Sequence[float]) -> float:
    """Return the mean of the middle half of the values."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())
