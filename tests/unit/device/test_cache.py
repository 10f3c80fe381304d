from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.device import Runtime
from edgewise.device.fallback.cache import ENTRY_BYTES, OUTPUT_BYTES, ExactCache, key_of
from edgewise.device.fallback.options import FallbackOptions
from edgewise.device.tally import Tally
from edgewise.errors import ConfigError
from tests.unit.device.test_runtime import saved

X = np.arange(6, dtype=np.float32)


def test_keys_differ_in_everything_that_an_answer_depends_on() -> None:
    inputs: list[dict[str, np.ndarray[Any, Any]]] = [
        {"x": X},
        {"y": X},
        {"x": X.reshape(2, 3)},
        {"x": X.view(np.int32)},
        {"x": X, "y": X},
        {"x": np.concatenate([X, X])},
        {"x": X[:5]},
        {"x": -0.0 * X},
        {"x": 0.0 * X},
        {},
    ]
    keys = {key_of(identity, each) for identity in (b"a" * 16, b"b" * 16) for each in inputs}
    assert len(keys) == 2 * len(inputs)
    strided = np.zeros((6, 2), np.float32)
    strided[:, 0] = X
    assert key_of(b"a", {"x": strided[:, 0]}) == key_of(b"a", {"x": X})
    assert key_of(b"a", {"x": np.array(1.0), "y": X}) == key_of(b"a", {"y": X, "x": np.array(1.0)})
    assert key_of(b"a", {"x": np.array(["text"], object)}) is None


@given(st.integers(0, 20_000), st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3000)), max_size=80))
def test_it_holds_no_more_than_its_bytes_and_what_was_used_last(most: int, asked: list[tuple[int, int]]) -> None:
    cache, used = ExactCache(most, Tally()), list[tuple[bytes, int]]()
    for name, size in asked:
        key = bytes([name])
        found = cache.find(key)
        if found is not None:
            used.append(next(each for each in used if each[0] == key))
            used.remove(used[-1])
            continue
        cache.keep(key, {"y": np.full(size, name, np.uint8)})
        full = ENTRY_BYTES + OUTPUT_BYTES + size
        if full <= most:
            used.append((key, full))
            while sum(each for _, each in used) > most:
                used.pop(0)
        assert cache.bytes == sum(each for _, each in used) <= most
        assert len(cache) == len(used)
    for key, full in used:
        kept = cache.find(key)
        assert kept is not None
        assert kept["y"].tolist() == [key[0]] * (full - ENTRY_BYTES - OUTPUT_BYTES)


def test_a_stream_is_never_cached(tmp_path_factory: pytest.TempPathFactory) -> None:
    model = saved(tmp_path_factory.mktemp("stream"))
    with pytest.raises(ConfigError, match="state"):
        Runtime.open(model, state=[("state", "sum")], fallback=FallbackOptions(cache_bytes=1000))
