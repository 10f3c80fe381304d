"""Attacks on a device through its agent: each is refused under its own name, and the old model goes on answering."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import shutil
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from onnx import TensorProto, helper
from tuf.api.metadata import Metadata, TargetFile, Targets, Timestamp

from edgewise.bundle import archive as archives
from edgewise.contracts.policy import Image
from edgewise.contracts.rollout import Release
from edgewise.contracts.signed import SignedRelease, custom_of
from edgewise.contracts.telemetry import Envelope
from edgewise.device.agent.counts import snake
from edgewise.device.agent.running import Agent
from edgewise.device.agent.settings import Settings, Trial
from edgewise.device.trust.pace import Pace
from edgewise.keys.pair import generate, signer_of
from tests.faults.device.agents import enrol, publish, started
from tests.faults.device.bundles import GRAPH, WEIGHTS, content, graph, restated, sample
from tests.faults.trust.fleet import PRODUCT, Fleet, Quiet, served
from tests.unit.bundle.bundles import archive

SETTINGS = Settings(
    trial=Trial(timeout_s=60.0), transfer=Pace(grace_s=2.0, idle_s=1.0, bytes_per_s=20_000.0, total_s=20.0)
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """Return a fleet with a device that runs 1.2.0; each test takes a copy of both."""
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    with served(fleet.store) as url:
        fleet.direct(publish(fleet, "1.2.0"))
        with started(enrol(fleet, url), SETTINGS) as agent:
            assert agent.poll().result == "updated"
    return fleet


@pytest.fixture
def fleet(installed: Fleet, tmp_path: Path) -> Fleet:
    shutil.copytree(installed.folder, tmp_path, dirs_exist_ok=True)
    fleet = copy.copy(installed)
    fleet.folder, fleet.store = tmp_path, tmp_path / "store"
    fleet.images, fleet.directions = fleet.files(), fleet.files("/director")
    return fleet


@pytest.fixture
def agent(fleet: Fleet) -> Iterator[Agent]:
    """Yield the device's agent, which answers with 1.2.0."""
    with served(fleet.store) as url:
        yield from _agent(fleet, url)


def _agent(fleet: Fleet, url: str, settings: Settings = SETTINGS) -> Iterator[Agent]:
    folder = fleet.folder / "gateway-17"
    identity = folder / "enrolment" / "device.json"
    document = msgspec.json.decode(identity.read_bytes()) | {"server": url}
    identity.write_bytes(msgspec.json.encode(document))
    with started(folder, settings) as agent:
        yield agent


def refused(agent: Agent, kind: str, result: str = "refused") -> list[Envelope]:
    """Poll; check that it is refused under this name, told in status and telemetry, and that 1.2.0 answers.

    Returns what is reported of the release that was refused.
    """
    last = agent.poll()
    assert last.problem is not None, last
    assert (last.result, last.problem.kind) == (result, kind), last.problem
    status = agent.status()
    assert status.release == "1.2.0"
    assert status.refusals == {kind: 1}
    assert agent._serving.infer({"x": sample()}).outcome.kind == "local"
    (own, *others) = sorted(agent._reports.collector.drain(), key=lambda each: -len(each.counters))
    assert own.counters[f"refused.{snake(kind)}"] == 1
    assert not any(each.crash_loop for each in others)
    return others


def test_replay_of_old_metadata(fleet: Fleet, agent: Agent) -> None:
    timestamp = fleet.store / "repository" / "metadata" / "timestamp.json"
    old = timestamp.read_bytes()
    publish(fleet, "1.3.0")
    assert agent.poll().result == "up to date"
    timestamp.write_bytes(old)
    refused(agent, "RollbackError")


def test_replay_of_an_old_policy(fleet: Fleet, agent: Agent) -> None:
    """A thief of the director's key signs the release before with a new number: the signed floor stands above it."""
    old = publish(fleet, "1.1.0")
    publish(fleet, "1.2.1", archive_of("1.2.1", floor="1.2.0"))
    fleet.direct(old)
    refused(agent, "RollbackError")


def test_mix_and_match_of_metadata(fleet: Fleet, agent: Agent) -> None:
    folder = fleet.store / "repository" / "metadata"
    publish(fleet, "1.3.0")
    new, old = sorted(folder.glob("*.kws.json"), key=lambda path: -int(path.name.split(".")[0]))[:2]
    new.write_bytes(old.read_bytes())
    refused(agent, "MixedMetadataError")


def test_mix_and_match_of_repositories(fleet: Fleet, agent: Agent) -> None:
    """The director names a bundle that the image repository holds with another digest."""
    new = publish(fleet, "1.3.0")
    fleet.direct(msgspec.structs.replace(new, sha256="0" * 64))
    refused(agent, "DisagreementError")


def test_wrong_key(fleet: Fleet, agent: Agent) -> None:
    path = fleet.store / "repository" / "director" / "metadata" / "timestamp.json"
    forged = Metadata[Timestamp].from_bytes(path.read_bytes())
    forged.signed.version += 1
    forged.sign(signer_of(generate()))
    path.write_bytes(forged.to_bytes())
    refused(agent, "SignatureError")


def test_tampered_tensor(fleet: Fleet, agent: Agent) -> None:
    image = publish(fleet, "1.3.0")
    fleet.direct(image)
    path = bundle_path(fleet, image)
    data = bytearray(path.read_bytes())
    data[data.index(content("1.3.0", product=PRODUCT, seed=130)[1][WEIGHTS]) + 5] ^= 1  # type: ignore[arg-type]
    path.write_bytes(data)
    (told,) = refused(agent, "DigestError")
    assert (told.release, told.signature_failures) == (image.release.digest, 1)  # a hard stop for its rollout


def test_oversize_file(fleet: Fleet, agent: Agent) -> None:
    image = publish(fleet, "1.3.0")
    fleet.direct(image)
    path = bundle_path(fleet, image)
    path.write_bytes(path.read_bytes() + bytes(1 << 20))
    refused(agent, "EndlessDataError")


def test_a_bundle_beyond_the_quota(fleet: Fleet, agent: Agent) -> None:
    image = publish(fleet, "1.3.0")
    fleet.direct(image)
    agent._updater._quota_bytes = 1000
    (told,) = refused(agent, "QuotaError")
    assert (told.release, told.counters) == (image.release.digest, {"install_failed.quota_error": 1})


def test_slow_server(fleet: Fleet) -> None:
    """Metadata come in time, and the bundle a byte at a time."""
    fleet.direct(publish(fleet, "1.3.0"))
    with slow(fleet.store) as url:
        for agent in _agent(fleet, url):
            begin = time.monotonic()
            refused(agent, "SlowRetrievalError", "unreachable")
            assert time.monotonic() - begin < 15


def test_a_library_of_custom_operators_that_nobody_signed(fleet: Fleet, agent: Agent) -> None:
    manifest, made = content("1.3.0", product=PRODUCT)
    with_library = archive(manifest, dict(sorted({**made, "variants/fp32/ops.so": b"ELF"}.items())))
    fleet.direct(plant(fleet, "1.3.0", with_library))
    refused(agent, "UnsignedFileError")


def test_a_model_that_needs_a_library_of_custom_operators(fleet: Fleet, agent: Agent) -> None:
    """Signed or not, no library is ever loaded: there is nothing that could load one."""
    node = helper.make_node("Own", ["y"], ["z"], domain="evil")
    fleet.direct(plant(fleet, "1.3.0", with_graph("1.3.0", extra=(node,))))
    refused(agent, "CustomOperatorError")


@pytest.mark.parametrize("location", ["../../../../enrolment/key.pem", "/etc/passwd"])
def test_a_model_that_reads_other_files(fleet: Fleet, agent: Agent, location: str) -> None:
    fleet.direct(plant(fleet, "1.3.0", with_graph("1.3.0", location=location)))
    refused(agent, "UnsafeModelError")


def test_a_model_that_is_none(fleet: Fleet, agent: Agent) -> None:
    manifest, made = content("1.3.0", product=PRODUCT)
    made[GRAPH] = b"\x08\x09" + bytes(range(200)) * 40
    fleet.direct(plant(fleet, "1.3.0", archive(restated(manifest, made), made)))
    refused(agent, "ExecutionError")


def test_a_model_that_takes_all_memory(fleet: Fleet, agent: Agent) -> None:
    """64 TiB asked for by a graph of a few bytes: it ends the trial's process, or is refused in it."""
    nodes = (
        helper.make_node(
            "Constant", [], ["size"], value=helper.make_tensor("s", TensorProto.INT64, [2], [1 << 22] * 2)
        ),
        helper.make_node("ConstantOfShape", ["size"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["z"], keepdims=0),
    )
    fleet.direct(plant(fleet, "1.3.0", with_graph("1.3.0", extra=nodes)))
    refused(agent, "OutOfMemoryError")


def test_a_model_that_never_returns(fleet: Fleet) -> None:
    settings = msgspec.structs.replace(SETTINGS, trial=Trial(timeout_s=3.0))
    fleet.direct(plant(fleet, "1.3.0", with_graph("1.3.0", extra=endless())))
    with served(fleet.store) as url:
        for agent in _agent(fleet, url, settings):
            refused(agent, "WorkerError")


@pytest.mark.parametrize("name", ["../escape", "/etc/cron.d/x", "a/../../b", "c:x", "a\\b"])
def test_names_that_leave_the_folder(fleet: Fleet, agent: Agent, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with monkeypatch.context() as patch:  # the product's writer refuses such names too
        patch.setattr(archives, "check_names", lambda _names: None)
        data = with_name("1.3.0", name)
    fleet.direct(plant(fleet, "1.3.0", data))
    refused(agent, "UnsafePathError")
    assert not any("escape" in path.name for path in fleet.folder.rglob("*"))


def test_a_link_in_a_bundle(fleet: Fleet, agent: Agent) -> None:
    data = bytearray(archive(*content("1.3.0", product=PRODUCT)))
    mode = (0o100644 << 16).to_bytes(4, "little")
    at = data.rindex(mode)
    data[at : at + 4] = (0o120777 << 16).to_bytes(4, "little")
    fleet.direct(plant(fleet, "1.3.0", bytes(data)))
    refused(agent, "UnsafePathError")


def test_a_link_where_a_file_of_a_slot_was(fleet: Fleet) -> None:
    """Somebody with access to the disk turns a file into a link to the same bytes: no link is followed."""
    folder = fleet.folder / "gateway-17"
    path = folder / "slots" / "a" / "files" / GRAPH
    shutil.move(path, folder / "elsewhere")
    path.symlink_to(folder / "elsewhere")
    with served(fleet.store) as url:
        for agent in _agent(fleet, url):
            assert agent.status().release is None
            assert agent.status().refusals == {"SlotError": 1}
            assert agent.poll().result == "updated"  # it is installed anew
            assert agent.status().release == "1.2.0"


def archive_of(version: str, *, floor: str) -> bytes:
    manifest, made = content(version, product=PRODUCT)
    return archive(msgspec.structs.replace(manifest, security_floor=floor), made)


def with_graph(version: str, *, extra: tuple[Any, ...] = (), location: str = "weights.bin") -> bytes:
    manifest, made = content(version, product=PRODUCT)
    made[GRAPH] = graph(manifest.variants[0].tensors, extra=extra, location=location)
    return archive(restated(manifest, made), made)


def with_name(version: str, name: str) -> bytes:
    manifest, made = content(version, product=PRODUCT)
    made = dict(sorted({**made, name: b"x"}.items()))
    return archive(restated(manifest, made), made)


def endless() -> tuple[Any, ...]:
    """Return nodes that count to 2**62 one by one."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Sin", ["before"], ["after"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, [1, 2]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, [1, 2]),
        ],
    )
    turns = helper.make_tensor("n", TensorProto.INT64, [], [1 << 62])
    always = helper.make_tensor("t", TensorProto.BOOL, [], [True])
    return (
        helper.make_node("Constant", [], ["turns"], value=turns),
        helper.make_node("Constant", [], ["always"], value=always),
        helper.make_node("Loop", ["turns", "always", "y"], ["z"], body=body),
    )


def plant(fleet: Fleet, version: str, data: bytes) -> Image:
    """Sign a bundle as a thief of the product's own key could: without looking into it."""
    path = fleet.folder / "planted"
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    release = SignedRelease(product=PRODUCT, version=version, digest=manifest_digest(data), floor="1.0.0")
    name = f"{PRODUCT}/{PRODUCT}-{version}.edgewise"
    edition = fleet.edition()
    target = TargetFile.from_file(name, str(path), ["sha256"])
    target.unrecognized_fields["custom"] = custom_of(release)
    edition.change(PRODUCT, Targets).targets[name] = target
    fleet.images.write(f"targets/{PRODUCT}/{digest}.{name.partition('/')[2]}", path)
    edition.publish([fleet.kws, fleet.online])
    stated = Release(product=PRODUCT, version=version, digest=release.digest)
    return Image(release=stated, target=name, length=len(data), sha256=digest)


def manifest_digest(data: bytes) -> str:
    """Return the SHA-256 of the manifest, which is the first file of an archive and ends where its JSON does."""
    begin = data.index(b"{")
    document = data[begin : data.index(b"PK\x03\x04", begin)].rstrip(b"\0")
    return hashlib.sha256(document[: document.rindex(b"}") + 1]).hexdigest()


def bundle_path(fleet: Fleet, image: Image) -> Path:
    folder, _, name = image.target.partition("/")
    return fleet.store / "repository" / "targets" / folder / f"{image.sha256}.{name}"


@contextlib.contextmanager
def slow(folder: Path) -> Iterator[str]:
    """Serve a folder, bundles a byte at a time."""

    class Slow(Quiet):
        def copyfile(self, source: Any, outputfile: Any) -> None:
            if ".edgewise" not in self.path:
                super().copyfile(source, outputfile)
                return
            with contextlib.suppress(OSError):  # until nobody listens any more
                while byte := source.read(1):
                    outputfile.write(byte)
                    time.sleep(0.05)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Slow, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
