"""A delta applied to the old bundle is the new bundle, whatever the two are."""

from __future__ import annotations

import hashlib
import io

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgewise.bundle.delta import BLOCK_BYTES, LITERAL, Method, Segment, gaps
from edgewise.bundle.delta_apply import apply
from edgewise.bundle.delta_make import _by_tensors, candidates, make_delta
from tests.unit.bundle import bundles

SOME = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
DTYPES = st.sampled_from([np.int8, np.uint8, np.int16, np.int32, np.float32, np.float64])


def applied(old: bytes, delta: bytes, new: bytes) -> bytes:
    out = io.BytesIO()
    apply(old, io.BytesIO(delta), out.write, digest=hashlib.sha256(new).hexdigest())
    return out.getvalue()


@SOME
@given(old=st.binary(max_size=3000), new=st.binary(max_size=3000))
def test_any_bytes(old: bytes, new: bytes) -> None:
    for each in candidates(old, new):
        assert applied(old, each.data, new) == new
    best = make_delta(old, new)
    assert best is None or len(best.data) <= 0.7 * len(new)


@SOME
@given(data=st.data(), dtype=DTYPES, length=st.integers(1, 400))
def test_bundles_with_tensors_that_changed(data: st.DataObject, dtype: type[np.generic], length: int) -> None:
    arrays = hnp.arrays(dtype, length)
    old = bundles.bundle(weights={"a": data.draw(arrays), "b": data.draw(arrays), "gone": data.draw(arrays)})
    new = bundles.bundle(version="1.3.0", weights={"b": data.draw(arrays), "a": data.draw(arrays)})
    found = candidates(old, new)
    assert Method.PATCH in {each.method for each in found}
    for each in found:
        assert applied(old, each.data, new) == new


@SOME
@given(
    data=st.data(),
    old=st.binary(min_size=1, max_size=500),
    cuts=st.lists(st.tuples(st.integers(1, 60), st.booleans(), st.sampled_from([1, 2, 4, 8])), min_size=1, max_size=8),
)
def test_any_segments(data: st.DataObject, old: bytes, cuts: list[tuple[int, bool, int]]) -> None:
    segments = []
    for length, is_literal, width in cuts:
        size = length * width
        if is_literal or size > len(old):
            segments.append(Segment(length))
        else:
            segments.append(Segment(size, data.draw(st.integers(0, len(old) - size)), width))
    total = sum(each.length for each in segments)
    new = data.draw(st.binary(min_size=total, max_size=total))
    assert applied(old, _by_tensors(old, new, tuple(segments)).data, new) == new


@given(
    size=st.integers(0, 60),
    cuts=st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=6),
)
def test_gaps_are_what_no_segment_covers(size: int, cuts: list[tuple[int, int]]) -> None:
    segments = (*tuple(Segment(length, at) for at, length in cuts if at + length <= size), Segment(5, LITERAL))
    covered = {
        place for each in segments if each.source >= 0 for place in range(each.source, each.source + each.length)
    }
    found = [place for start, end in gaps(segments, size) for place in range(start, end)]
    assert found == [place for place in range(size) if place not in covered]


def test_a_tensor_of_more_than_one_block() -> None:
    random = np.random.default_rng(0)
    weights = random.integers(-100, 100, 3 * BLOCK_BYTES + 17, np.int8)
    old = bundles.bundle(weights={"w": weights})
    new = bundles.bundle(version="1.2.1", weights={"w": weights + random.integers(-1, 2, weights.size, np.int8)})
    for each in candidates(old, new):
        assert applied(old, each.data, new) == new
