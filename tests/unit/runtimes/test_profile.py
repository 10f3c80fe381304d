"""The profile's arithmetic, on traces written by hand."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edgewise.errors import ExecutionError
from edgewise.runtimes.base import KernelTime
from edgewise.runtimes.onnxruntime_profile import kernel_times
from tests.unit.runtimes.models import branching, conv_relu_add, serialised


def kernel(name: str, kind: str, ts: int, dur: int, index: int = 0) -> dict[str, Any]:
    arguments = {"op_name": kind, "node_index": str(index)}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": arguments}


def run_end(dur: int) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": 0, "dur": dur, "args": {}}


def times(events: list[dict[str, Any]], *, plain: list[float], profiled: list[float]) -> dict[str, float]:
    found = read(events, plain=plain, profiled=profiled)
    return {each.name: each.time_us for each in found}


def read(events: list[dict[str, Any]], *, plain: list[float], profiled: list[float]) -> tuple[KernelTime, ...]:
    graph = serialised(conv_relu_add())
    return kernel_times(msgspec.json.encode(events), optimised=graph, given=graph, plain_us=plain, profiled_us=profiled)


def test_the_half_microsecond_lost_by_rounding_down_is_given_back() -> None:
    events = [kernel("first", "Conv", 0, 10), kernel("y", "GlobalAveragePool", 10, 20), run_end(30)]
    assert times(events, plain=[31.0], profiled=[30.5]) == {"first": 10.5, "y": 20.5}


def test_what_the_profiler_costs_is_taken_off_each_kernel_so_that_they_add_up() -> None:
    events = [kernel("first", "Conv", 0, 10), kernel("y", "GlobalAveragePool", 13, 20), run_end(39)]
    # 31 us of kernels, 25 us without the profiler, of which 0 outside of the run: 3 us a kernel.
    found = times(events, plain=[25.0], profiled=[39.5])
    assert found == {"first": 7.5, "y": 17.5}
    assert sum(found.values()) == 25.0


def test_a_busy_neighbour_is_not_taken_for_the_profiler() -> None:
    events = [kernel("first", "Conv", 0, 1000), run_end(1000)]
    assert times(events, plain=[500.0], profiled=[1000.5])["first"] == pytest.approx(1000.5 - 4)
    assert times(events, plain=[2000.0], profiled=[1000.5])["first"] == 1000.5


def test_the_middle_half_of_the_rounds_counts() -> None:
    events = [each for dur in (10, 11, 12, 500) for each in (kernel("first", "Conv", 0, dur), run_end(dur))]
    found = times(events, plain=[10.5, 11.5, 12.5, 500.5], profiled=[10.5, 11.5, 12.5, 500.5])
    assert found == {"first": 12.0}


def test_only_the_last_runs_count() -> None:
    events = [each for dur in (900, 10) for each in (kernel("first", "Conv", 0, dur), run_end(dur))]
    assert times(events, plain=[10.5], profiled=[10.5]) == {"first": 10.5}


def test_a_container_keeps_only_its_own_time() -> None:
    graph = serialised(branching())
    events = [
        kernel("positive", "Greater", 0, 5),
        kernel("inner_Neg", "Neg", 12, 30),
        kernel("choice", "If", 10, 40),
        run_end(50),
    ]
    found = kernel_times(msgspec.json.encode(events), optimised=graph, given=graph, plain_us=[60.0], profiled_us=[50.5])
    assert {each.name: each.time_us for each in found} == {"positive": 5.5, "inner_Neg": 30.5, "choice": 10.0}


def test_a_kernel_repeated_in_a_loop_counts_whole() -> None:
    events = [kernel("first", "Conv", 0, 10), kernel("first", "Conv", 10, 10), run_end(20)]
    assert times(events, plain=[30.0], profiled=[20.5]) == {"first": 21.0}


def test_a_layout_convolution_is_traced_to_its_tensor() -> None:
    (found,) = read([kernel("first_relu_nchwc", "Conv", 0, 10), run_end(10)], plain=[11.0], profiled=[10.5])
    assert found.origins == ("first_relu",)


def test_a_profile_that_lost_runs_is_refused() -> None:
    with pytest.raises(ExecutionError, match="lost events"):
        times([kernel("first", "Conv", 0, 10)], plain=[11.0], profiled=[10.5])
