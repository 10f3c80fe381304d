"""A spool conserves its windows, and merging loses nothing but the time in between."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.contracts.telemetry import Envelope, decode_envelope
from edgewise.device.uplink import spool as spools
from edgewise.device.uplink.merging import MOST_MERGED_MS, merged
from edgewise.device.uplink.spool import Spool
from edgewise.fleet.ingest_totals import add, totals_of
from tests.laws.fleet.test_totals_laws import envelopes
from tests.unit.device.uplink.devices import window

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(st.sampled_from(["int8", "w4", "w8"]), min_size=1, max_size=6)),
        st.tuples(st.just("claim"), st.integers(1, 8)),
        st.tuples(st.just("acknowledge"), st.integers(0, 8)),
        st.tuples(st.just("take back"), st.integers(0, 8)),
        st.tuples(st.just("drop"), st.integers(0, 2)),
        st.tuples(st.just("open again"), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_every_window_is_held_acknowledged_or_counted_as_lost(steps: list[tuple[str, object]]) -> None:
    taken: list[Envelope] = []
    put = dropped_by_server = 0
    known: dict[tuple[str, int], bytes] = {}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(spools, "LEAST_LIMIT_BYTES", 0)
        limit = 4_000  # about three windows
        spool = Spool.open(Path(folder), limit_bytes=limit)
        claimed: list[spools.Claimed] = []
        for step, given_value in steps:
            count = given_value if isinstance(given_value, int) else 0
            if isinstance(given_value, list):
                spool.put([window(put + place, variant=variant) for place, variant in enumerate(given_value)])
                put += len(given_value)
                still = {each.number for each in spool.claim(most=99, most_bytes=1 << 20)} if claimed else set()
                claimed = [each for each in claimed if each.number in still]
            elif step == "claim":
                claimed = spool.claim(most=count, most_bytes=4_000)
                for each in claimed:
                    envelope = decode_envelope(each.document)
                    key = (envelope.boot, envelope.sequence)
                    assert known.setdefault(key, each.document) == each.document, "a key with two contents"
            elif step == "acknowledge":
                taken += [decode_envelope(each.document) for each in claimed[:count]]
                spool.acknowledged([each.number for each in claimed[:count]])
                claimed = claimed[count:]
            elif step == "take back":
                spool.not_received([each.number for each in claimed])
                for each in claimed:
                    known.pop((decode_envelope(each.document).boot, decode_envelope(each.document).sequence))
                claimed = []
            elif step == "drop":
                spool.drop([each.number for each in claimed[:count]])
                dropped_by_server += len(claimed[:count])
                claimed = claimed[count:]
            else:
                spool.close()
                spool = Spool.open(Path(folder), limit_bytes=limit)
            held = spool.held()
            assert held.size_bytes <= limit
        pending, rest = spool.held().lost_windows, []
        while batch := spool.claim(most=5, most_bytes=1 << 20):
            rest += [decode_envelope(each.document) for each in batch]
            spool.acknowledged([each.number for each in batch])
        spool.close()
    told = [*taken, *rest]
    assert sum(each.counters["requests"] for each in told) + sum(each.lost_windows for each in told) + pending == put
    assert len({each.key for each in told}) == len(told)


@settings(max_examples=100, deadline=None)
@given(envelopes(), envelopes())
def test_a_merged_window_adds_up_to_the_two(first: Envelope, second: Envelope) -> None:
    whole = merged(first, second)
    if whole is None:
        assert (
            first.device != second.device
            or first.release != second.release
            or (first.crash_loop and second.crash_loop)
            or abs(first.start_unix_ms - second.start_unix_ms) + 1000 > MOST_MERGED_MS
            or first.sketches["margin"].edges != second.sketches["margin"].edges
        )
        return
    both = add(totals_of(first), totals_of(second))
    assert totals_of(whole) == msgspec.structs.replace(both, envelopes=1)
    assert whole.key == first.key
    assert (whole.start_unix_ms, whole.end_unix_ms) == (
        min(first.start_unix_ms, second.start_unix_ms),
        max(first.end_unix_ms, second.end_unix_ms),
    )


def test_a_dropped_window_passes_on_the_losses_that_it_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "LEAST_LIMIT_BYTES", 0)
    spool = Spool.open(tmp_path, limit_bytes=4_000)
    for number in range(40):
        spool.put([window(number, variant=f"v{number}")])
    told = [decode_envelope(each.document) for each in spool.claim(most=99, most_bytes=1 << 20)]
    assert len(told) + sum(each.lost_windows for each in told) + spool.held().lost_windows == 40
    spool.close()
