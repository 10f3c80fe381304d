"""Keys, signed repository and fleet server of the demo, made and used as docs/how-to/fleet.md tells."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import msgspec

from edgewise.contracts.rollout import GatePolicy, MetricGate, RateGate, Stage, Statistic
from edgewise.contracts.telemetry import LATENCY_MS, REQUESTS
from edgewise.demo.loop.commands import Commands
from edgewise.demo.loop.releases import BEFORE, GOOD, PRODUCT
from edgewise.errors import EdgewiseError, FleetError, WorkerError
from edgewise.fleet.api.rollouts import Draft
from edgewise.fleet.store.rollouts import Kept, KeptEvent

CANARY = "canary"
DEVICE_CLASS = "gateway"
# The good release is no slower than fp32 wherever the search ran: where integers gain nothing in so small a model, it
# keeps floats and stores their weights as fp16. The bad release takes about twice as long.
POLICY = GatePolicy(
    metrics=(MetricGate(metric=LATENCY_MS, statistic=Statistic.P50, margin=0.25),),
    rates=(RateGate(events="crashes", trials=REQUESTS, margin=0.01),),
    report_s=60,
)
STAGES = (
    Stage(name=CANARY, label=CANARY, bake_s=12, decide_s=36, looks=12, minimum_devices=2),
    Stage(name="everybody", share=1.0, bake_s=12, decide_s=36, looks=12, minimum_devices=4),
)
HOLDBACK = 0.4
"""A share of so few devices that there are controls to the end."""
_READY_S = 300.0
_JSON = {"content-type": "application/json"}
ROOT, KEYS, SEALS, STORE, DATABASE, LOG = "trusted-root.json", "keys", "seals", "store", "fleet.db", "server.jsonl"


class Server:
    """The server's folder, and an operator's and a signer's access to it."""

    def __init__(self, folder: Path, commands: Commands) -> None:
        """Take the folder in which the commands run; nothing is there yet."""
        self.folder = folder
        self.url = f"http://127.0.0.1:{_free_port()}"
        self._commands = commands
        self._http = httpx.Client(base_url=self.url, timeout=120, trust_env=False)
        self._operator: dict[str, str] = {}
        self._signer: dict[str, str] = {}

    def prepare(self, runs: Mapping[str, Path]) -> dict[str, Path]:
        """Make the keys and the repository, seal each run and add it; return the bundles by version."""
        run = self._commands.run
        (self.folder / SEALS).mkdir()
        run("keys", "generate", f"{SEALS}/seal.pem", "--unencrypted")
        run("keys", "generate", "owner.pem", "--kind", "ed25519", "--unencrypted")
        place = ("--store", STORE, "--online", KEYS, "--trusted-root", ROOT)
        run("repo", "init", "--root-key", "owner.pub", "--targets-key", "owner.pub", "--key", "owner.pem", *place)
        run("repo", "delegate", PRODUCT, "--product-key", "owner.pub", "--key", "owner.pem", *place)

        def seal(version: str) -> Path:
            bundle = self.folder / f"{PRODUCT}-{version}.edgewise"
            alone = () if version == GOOD else ("--only-chosen",)  # the others' runs are made up of one variant
            run("seal", runs[version], "-o", bundle.name, "--key", f"{SEALS}/seal.pem", *alone)
            return bundle

        with ThreadPoolExecutor(2) as pool:
            bundles = dict(zip(runs, pool.map(seal, runs), strict=True))
        for bundle in bundles.values():
            run("repo", "add", bundle.name, "--key", "owner.pem", *place)
        return bundles

    def serve(self, log: Path) -> subprocess.Popen[bytes]:
        """Start the server, wait until it answers, and sign in. Raises WorkerError where it does not."""
        self._operator = _bearer(_token(self._commands.run("fleet", "init", "--database", DATABASE, "--json")))
        self._signer = _bearer(self._made("signer"))
        place = ("--database", DATABASE, "--store", STORE, "--online", KEYS, "--trusted-root", ROOT)
        pace = ("--port", self.url.rpartition(":")[2], "--poll-interval", "2", "--poll-jitter", "0.5", "--tick", "0.5")
        with log.open("ab") as out:
            process = self._commands.start("fleet", "serve", *place, "--trusted", SEALS, *pace, log=out)
        until = time.monotonic() + _READY_S
        while not self._is_ready():
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                raise WorkerError(f"the fleet server did not start: see {log}", required="a server that answers")
            time.sleep(0.1)
        return process

    def viewer(self) -> str:
        """Return a token that may look at everything and change nothing."""
        return self._made("viewer")

    def publish(self, version: str, bundle: Path) -> None:
        """Publish a sealed bundle, as a signer."""
        answer = self._http.put(
            f"/api/v1/releases/{PRODUCT}/{version}", content=bundle.read_bytes(), headers=self._signer
        )
        _checked(answer)

    def begin(self) -> None:
        """Give the product its first release."""
        self._post("/api/v1/rollouts/first", msgspec.json.encode({"product": PRODUCT, "version": BEFORE}))

    def grants(self, count: int, *, labels: tuple[str, ...]) -> list[str]:
        """Return one-time tokens for devices to come."""
        asked = {"product": PRODUCT, "device_class": DEVICE_CLASS, "labels": labels, "count": count}
        made = msgspec.json.decode(self._post("/api/v1/enrolments", msgspec.json.encode(asked)))
        tokens: list[str] = made["tokens"]
        return tokens

    def roll_out(self, before: str, after: str) -> str:
        """Start a rollout and return its name."""
        draft = Draft(
            product=PRODUCT, from_version=before, to_version=after, stages=STAGES, policy=POLICY, holdback=HOLDBACK
        )
        made = msgspec.json.decode(self._post("/api/v1/rollouts", msgspec.json.encode(draft)), type=Kept)
        self._post(f"/api/v1/rollouts/{made.rollout.id}/start", b"{}")
        return made.rollout.id

    def extend(self, name: str) -> None:
        """Watch the stage of a rollout anew, after its last look left it undecided."""
        self._post(f"/api/v1/rollouts/{name}/extend", b"{}")

    def rollout(self, name: str) -> Kept:
        """Return a rollout as it is now."""
        return msgspec.json.decode(self._get(f"/api/v1/rollouts/{name}"), type=Kept)

    def events(self, name: str, after: int) -> list[KeptEvent]:
        """Return what happened to a rollout since event number `after`."""
        return msgspec.json.decode(self._get(f"/api/v1/rollouts/{name}/events?after={after}"), type=list[KeptEvent])

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _made(self, role: str) -> str:
        return _token(self._commands.run("fleet", "token", "--role", role, "--database", DATABASE, "--json"))

    def _is_ready(self) -> bool:
        try:
            return self._http.get("/health/ready").is_success
        except httpx.HTTPError:
            return False

    def _get(self, path: str) -> bytes:
        return _checked(self._http.get(path, headers=self._operator))

    def _post(self, path: str, body: bytes) -> bytes:
        return _checked(self._http.post(path, content=body, headers=self._operator | _JSON))


def _checked(answer: httpx.Response) -> bytes:
    if not answer.is_success:
        raise FleetError(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text[:500]}")
    return answer.content


def _token(document: str) -> str:
    try:
        made: dict[str, str] = msgspec.json.decode(document, type=dict[str, str])
        return made["token"]
    except (msgspec.DecodeError, KeyError) as error:
        raise EdgewiseError("the server's command line gave no token") from error


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
