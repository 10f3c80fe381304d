from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgewise.contracts.recipe import Signs
from edgewise.contracts.target import Target
from edgewise.errors import TargetError
from edgewise.forge.measure import probe as probe_module
from edgewise.forge.measure.probe import cache_folder, fit_line
from edgewise.forge.targets import is_here, list_targets, load_target, local_target, probe


def test_this_machine_comes_first_and_names_are_unique() -> None:
    names = [each.name for each in list_targets()]
    assert names[0] == "local"
    assert len(names) == len(set(names))
    assert {"raspberry-pi-5", "jetson-orin-cpu", "x86-vnni-server", "x86-avx2"} <= set(names)


@pytest.mark.parametrize("target", list_targets(), ids=lambda target: target.name)
def test_profiles_load_by_name_and_claim_no_measurement(target: Target) -> None:
    assert load_target(target.name) == target
    assert target.probe is None
    assert target.description


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(TargetError, match="did you mean 'raspberry-pi-5'"):
        load_target("rasberry-pi-5")


def test_a_users_profile_is_read_from_its_folder(tmp_path: Path) -> None:
    text = 'name = "gate"\nthreads = 2\nsigns = "s8s8"\n[power]\nidle_w = 1.5\nactive_w = 2.0\n'
    (tmp_path / "gate.toml").write_text(text, encoding="utf-8")
    target = load_target("gate.toml", folder=tmp_path)
    assert (target.threads, target.signs) == (2, Signs.S8S8)
    assert target.power is not None
    assert target.power.idle_w == 1.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "gate"\nthread = 2', "did you mean 'threads'"),
        ('name = "gate"\nsigns = "u8u8"', "signs"),
        ('name = "gate"\nthreads = 0', "threads of 1 or more"),
        ('name = "gate"\nruntimes = []', "at least one runtime"),
        ('name = "gate"\nmemory_mib = -1.0', "memory_mib above 0"),
        ('name = "gate"\n[power]\nidle_w = -1\nactive_w = 1', "power of 0 W"),
        ('name = "local"', "this machine"),
        ("threads = 2", "name"),
        ("name = gate", "gate.toml"),
        ("\x00", "gate.toml"),
    ],
)
def test_a_wrong_profile_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "gate.toml").write_text(text, encoding="utf-8")
    with pytest.raises(TargetError) as caught:
        load_target(str(tmp_path / "gate.toml"))
    assert message in str(caught.value)


def test_bytes_that_are_not_text_and_missing_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "gate.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TargetError):
        load_target(str(tmp_path / "gate.toml"))
    with pytest.raises(TargetError, match="No such file"):
        load_target(str(tmp_path / "none.toml"))


def test_only_a_machine_of_its_class_can_measure_a_target() -> None:
    strange = Target(name="strange", instruction_sets=("no_such_instruction",))
    assert is_here(local_target())
    assert not is_here(strange)
    assert not is_here(msgspec.structs.replace(strange, instruction_sets=()))
    with pytest.raises(TargetError, match="run `edgewise targets probe` on the device"):
        probe(strange)


def test_probing_measures_once_and_then_reads_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = probe(local_target(), cache=tmp_path)
    assert first.probe is not None
    assert all(value >= 0 for value in msgspec.structs.astuple(first.probe))
    assert first.probe.fp32_gmacs > 0
    assert first.probe.int8_gmacs > 0
    assert first.probe.memory_gib_per_s > 0
    (cached,) = tmp_path.iterdir()

    def measured_again(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(probe_module, "measure", measured_again)
    assert probe(local_target(), cache=tmp_path) == first
    with pytest.raises(AssertionError):
        probe(local_target(), cache=tmp_path, fresh=True)
    with pytest.raises(AssertionError):
        probe(local_target(), cache=tmp_path, threads=2)
    cached.write_bytes(b"{")
    with pytest.raises(AssertionError):
        probe(local_target(), cache=tmp_path)


def test_a_cache_that_cannot_be_written_does_not_hinder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert probe(local_target(), cache=tmp_path / "file" / "folder").probe is not None


def test_the_cache_follows_the_xdg_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "edgewise" / "targets"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path.home() / ".cache" / "edgewise" / "targets"


def test_a_line_through_border_times_gives_call_and_element_costs() -> None:
    elements = np.array([256, 4096, 65536])
    call, element = fit_line(elements, 3.0 + 0.12e-3 * elements)
    assert call == pytest.approx(3.0)
    assert element == pytest.approx(0.12)


def test_costs_are_never_negative() -> None:
    assert fit_line(np.array([10, 1000]), np.array([1.0, 200.0]))[0] == 0.0
    assert fit_line(np.array([10, 1000]), np.array([5.0, 1.0]))[1] == 0.0
