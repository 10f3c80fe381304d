"""Conditions of sound, sensors and text, and which of them an input gets."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgewise.forge.tasks.base import Array
from edgewise.forge.verify.corruptions import series, sounds, text
from edgewise.forge.verify.corruptions.modality import _array_view

RATE = 16000
DRAW = np.random.default_rng(2)
WAVE = 0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE) + 0.01 * DRAW.standard_normal(RATE)
READINGS = np.stack([np.sin(np.arange(500) / 9), np.cos(np.arange(500) / 5) * 4 + 10])


def seeded() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.mark.parametrize("name", list(sounds.conditions()))
def test_a_sound_keeps_its_length_and_range(name: str) -> None:
    for severity in sounds.conditions()[name]:
        made = sounds.corrupt(WAVE, name, severity, rate=RATE, generator=seeded())
        assert made.shape == WAVE.shape
        assert np.abs(made).max() <= 1
        assert (made != WAVE).any()
        assert (made == sounds.corrupt(WAVE, name, severity, rate=RATE, generator=seeded())).all()


@pytest.mark.parametrize("snr_db", sounds.SNR_DB)
def test_noise_has_the_ratio_that_it_says(snr_db: float) -> None:
    added = sounds.noise(WAVE, snr_db, generator=seeded()) - WAVE
    assert 10 * np.log10((WAVE**2).mean() / (added**2).mean()) == pytest.approx(snr_db, abs=1e-9)


def test_silence_stays_silent_and_finite() -> None:
    for name, severities in sounds.conditions().items():
        for severity in severities:
            assert np.isfinite(sounds.corrupt(np.zeros(4000), name, severity, rate=RATE, generator=seeded())).all()


def test_a_room_decays_by_60_db_in_its_time() -> None:
    click = np.zeros(RATE)
    click[0] = 1.0
    tail = sounds.reverberation(click, 0.4, 0.0, rate=RATE, generator=seeded())
    energy = np.cumsum(tail[:0:-1] ** 2)[::-1]  # Schroeder's backward integral
    level = 10 * np.log10(energy / energy[0] + 1e-30)
    fall = np.argmax(level < -25) - np.argmax(level < -5)
    assert 3 * fall / RATE == pytest.approx(0.4, rel=0.1)


def test_mu_law_of_8_bits_is_close_and_of_4_bits_is_not() -> None:
    close, coarse = (np.abs(sounds._mu_law(WAVE, bits=bits) - WAVE).mean() for bits in (8, 4))
    assert close < 0.005 < coarse


def test_a_lower_rate_loses_what_lies_above_it() -> None:
    high = np.sin(2 * np.pi * 6000 * np.arange(RATE) / RATE)
    assert np.abs(sounds.corrupt(high, "sample_rate", 4, rate=RATE, generator=seeded())).mean() < 0.02


@pytest.mark.parametrize("name", list(series.CONDITIONS))
def test_a_series_is_further_off_with_severity(name: str) -> None:
    readings = np.random.default_rng(4).normal(size=(2, 2000))  # normal: some lie beyond three deviations
    away = []
    for severity in range(1, 6):
        made = series.corrupt(readings, name, severity, generator=seeded())
        assert made.shape == readings.shape
        away.append(np.abs(made - readings).mean())
    assert away == sorted(away)
    assert away[0] > 0


@pytest.mark.parametrize("share", series.LOST)
def test_drop_out_holds_about_the_share_it_says(share: float) -> None:
    clock = np.arange(2000.0)[None]
    held = (np.diff(series.dropout(clock, share, generator=seeded())[0]) == 0).mean()
    assert held == pytest.approx(share, abs=0.03)


def test_spikes_and_clipping_are_as_high_as_they_say() -> None:
    spread = READINGS.std(axis=1, keepdims=True)
    added = (series.corrupt(READINGS, "spikes", 5, generator=seeded()) - READINGS) / spread
    assert set(np.round(np.unique(added), 6)) == {-6.0, 0.0, 6.0}
    clipped = series.corrupt(READINGS, "clipping", 5, generator=seeded())
    assert (np.abs(clipped - READINGS.mean(axis=1, keepdims=True)) <= spread + 1e-9).all()


def test_typos_hit_about_the_share_of_letters_and_leave_other_characters() -> None:
    plain = "the quick brown fox jumps over the lazy dog 12345 " * 40
    assert text.typos("12345 !?", 1.0, generator=seeded()) == "12345 !?"
    assert text.typos(plain, 0.0, generator=seeded()) == plain
    words = [
        a != b for a, b in itertools.zip_longest(plain.split(), text.typos(plain, 0.06, generator=seeded()).split())
    ]
    assert 0.05 < np.mean(words[:100]) < 0.6


def test_case_changes_only_case() -> None:
    for severity in range(1, 6):
        made = text.corrupt_text("The Cat sat", "case", severity, generator=seeded())
        assert made.lower() == "the cat sat"
    assert text.corrupt_text("The Cat", "case", 5, generator=seeded()) == "THE CAT"


def test_replaced_tokens_come_from_the_pool_and_keep_the_ends() -> None:
    ids = np.arange(100, 300)
    made = text.replace_tokens(ids, 0.3, np.array([7, 8]), generator=seeded())
    assert made[[0, -1]].tolist() == [100, 299]
    assert set(made[made != ids]) == {7, 8}
    assert np.mean(made != ids) == pytest.approx(0.3, abs=0.1)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.round(WAVE * 2**15)[None] / 2**15, "sound"),
        (READINGS[None], "series"),
        (DRAW.normal(size=(1, 1, 49, 10)), "series"),
        (DRAW.random((1, 32, 32, 3)), "image"),
        (DRAW.random((1, 1, 28, 28)), "image"),
        (DRAW.normal(size=(1, 1, 64, 64)) * 7, "series"),
    ],
)
def test_the_kind_of_an_input_follows_from_its_shape_and_values(values: Array, kind: str) -> None:
    view = _array_view([], "x", [values.astype(np.float32)])  # type: ignore[arg-type] # no dataset of files
    assert not isinstance(view, str)
    assert view.kind == kind


def test_features_say_which_conditions_they_cannot_show() -> None:
    view = _array_view([], "x", [DRAW.normal(size=(1, 1, 49, 10)).astype(np.float32)])  # type: ignore[arg-type] # no dataset of files
    assert not isinstance(view, str)
    assert set(view.conditions) == {"dropout"}
    assert {"noise", "reverberation", "codec"} <= set(view.missing)


def test_a_table_row_has_no_conditions() -> None:
    assert isinstance(_array_view([], "x", [DRAW.normal(size=(1, 8)).astype(np.float32)]), str)  # type: ignore[arg-type] # no dataset of files
