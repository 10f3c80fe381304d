"""An enrolment that fails leaves nothing behind, and one that there was stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Root

from edgewise.cli import agent as cli
from edgewise.device.agent.enrolment import load
from edgewise.errors import AgentError, ConfigError, EdgewiseError, HttpStatusError, SignatureError, TransferError
from tests.faults.device.agents import enrol
from tests.faults.trust.fleet import Fleet, served
from tests.faults.trust.simulator import signer


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Fleet, Path]:
    fleet = Fleet(tmp_path)
    for name, data in zip(("root.json", "director-root.json"), fleet.roots, strict=True):
        (tmp_path / name).write_bytes(data)
    return fleet, tmp_path / "root.json"


def refused(kind: type[EdgewiseError], folder: Path, *arguments: str | Path) -> None:
    with pytest.raises(kind):
        cli.run(["enroll", "--folder", str(folder), *map(str, arguments)])
    assert not folder.exists()


def test_what_is_wrong_leaves_nothing_behind(roots: tuple[Fleet, Path]) -> None:
    fleet, root = roots
    folder = fleet.folder / "device"
    with served(fleet.store) as url:
        good = ("--server", url, "--token", "x" * 20, "--device", "gateway-17", "--root", root)
        refused(HttpStatusError, folder, *good)  # a server of files enrols nobody
        refused(ConfigError, folder, *good[:-2])  # neither roots nor a word about them
        refused(ConfigError, folder, *good, "--trust-on-first-use")
        refused(ConfigError, folder, *good, "--device", "a device")
        refused(ConfigError, folder, *good, "--token", "short")
        refused(ConfigError, folder, *good, "--root", fleet.folder / "nothing.json")
        refused(TransferError, folder, *good, "--server", "http://127.0.0.1:9")
        refused(EdgewiseError, folder, *good, "--server", "ftp://x")
        (fleet.folder / "director-root.json").write_bytes(b"{}")
        refused(EdgewiseError, folder, *good)
        forged = Metadata[Root].from_bytes(fleet.roots[1])
        forged.signatures.clear()
        forged.sign(signer(9))
        (fleet.folder / "director-root.json").write_bytes(forged.to_bytes())
        refused(SignatureError, folder, *good)


def test_an_enrolment_that_there_was_stays_where_another_one_fails(roots: tuple[Fleet, Path]) -> None:
    fleet, root = roots
    with served(fleet.store) as url:
        folder = enrol(fleet, url)
        before = (folder / "enrolment" / "key.pem").read_bytes()
        good = ["enroll", "--folder", str(folder), "--server", url, "--token", "x" * 20, "--root", str(root)]
        for kind, more in ((AgentError, []), (HttpStatusError, ["--again"])):
            with pytest.raises(kind):
                cli.run([*good, *more])
        assert (folder / "enrolment" / "key.pem").read_bytes() == before
        assert load(folder).identity.device == "gateway-17"


@pytest.mark.parametrize(("name", "data"), [("device.json", b"{"), ("key.pem", b"no key"), ("root.json", None)])
def test_a_damaged_enrolment_is_named(roots: tuple[Fleet, Path], name: str, data: bytes | None) -> None:
    folder = enrol(roots[0], "http://127.0.0.1:9")
    path = folder / "enrolment" / name
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(AgentError) as caught:
        load(folder)
    assert "enrol" in caught.value.next_step
