"""A device behind its agent as the place that measures; models and samples go there, figures come back.

The agent listens on its own device only: reach it through `ssh -L`, which also encrypts and names the device.
"""

from __future__ import annotations

import http.client
import io
import tempfile
import threading
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import msgspec
import numpy as np

from edgewise.contracts.evidence import EnergyProvenance
from edgewise.contracts.lab import FEEDS, LAB_PATH, QUESTION, LabAnswer, LabQuestion, Measure
from edgewise.contracts.target import PowerModel, RuntimeName
from edgewise.contracts.units import mib
from edgewise.errors import ConfigError, ExecutionError, HttpStatusError, UnreachableError
from edgewise.forge.measure.energy import Energy
from edgewise.forge.measure.lab import Feeds, Model, Timed
from edgewise.runtimes.base import Array, KernelTime, Runtime, Session
from edgewise.runtimes.timing import Plan, Progress, Timings

TIMEOUT_S = 900.0
MOST_ANSWER_BYTES = 64 * 1024 * 1024


class AgentLab:
    """A device's lab. Every call is one request; the agent does one measurement at a time."""

    def __init__(self, url: str, token: str) -> None:
        """Ask what device it is. Raises ConfigError, UnreachableError, HttpStatusError."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.path not in {"", "/"}:
            raise ConfigError(
                f"--on {url}",
                required="http://HOST:PORT of an agent",
                next_step="forward its port: ssh -L 8750:127.0.0.1:8750 DEVICE, then --on http://127.0.0.1:8750",
            )
        if not token:
            raise ConfigError(
                "--on without a token", required="the token of the agent's [lab]", next_step="set EDGEWISE_LAB_TOKEN"
            )
        self._host, self._port, self._token = parts.hostname, parts.port or 80, token
        self._one = threading.Lock()
        self.name = f"agent {self._host}:{self._port}"
        self.about = self.ask(LabQuestion(measure=Measure.ABOUT))

    def ask(
        self, question: LabQuestion, models: Mapping[str, Path | bytes] | None = None, feeds: Sequence[Feeds] = ()
    ) -> LabAnswer:
        """Send one question. Raises UnreachableError, HttpStatusError, and ExecutionError for what the device says."""
        with self._one, tempfile.TemporaryFile() as body:
            _pack(body, question, models or {}, feeds)
            answer = self._sent(body)
        if answer.problem:
            raise ExecutionError(
                f"{self.name}: {answer.problem}", next_step="look whether the device has room for the model"
            )
        return answer

    def time(
        self,
        models: Mapping[str, Model],
        feeds: Sequence[Feeds],
        *,
        threads: int,
        plan: Plan,
        progress: Progress | None = None,
    ) -> Timed:
        """Time all models in turns in one process of the device."""
        names = {f"m{at}": name for at, name in enumerate(models)}
        runtimes = {where for where, _ in models.values()}
        if len(runtimes) > 1:
            raise ConfigError(
                f"candidates for {', '.join(sorted(runtimes))}", required="one runtime at a time with --on"
            )
        question = LabQuestion(
            measure=Measure.TIME,
            runtime=next(iter(runtimes)),
            threads=threads,
            models=tuple(names),
            names=tuple(tuple(feed) for feed in feeds),
            rounds=plan.rounds,
            least=plan.least,
            budget_s=plan.budget_s,
            precision=plan.precision,
            seed=plan.seed,
        )
        found = self.ask(question, {key: models[name][1] for key, name in names.items()}, feeds)
        if progress is not None:
            progress(1.0)
        return Timed(
            {
                names[key]: Timings(each.samples_ms, each.repeats, each.busy_ms, each.per_round)
                for key, each in found.times.items()
            },
            {names[key]: reason for key, reason in found.failures.items()},
        )

    def peak_mib(self, model: Model, feeds: Sequence[Feeds], *, threads: int) -> float:
        """Measure in a fresh process of the device."""
        where, file = model
        names = tuple(tuple(feed) for feed in feeds)
        question = LabQuestion(measure=Measure.MEMORY, runtime=where, threads=threads, models=("m0",), names=names)
        found = self.ask(question, {"m0": file}, feeds)
        if found.peak_bytes is None:
            raise ExecutionError(f"{self.name} cannot tell the memory of a process")
        return mib(found.peak_bytes)

    def energy(self, session: Session, feeds: Sequence[Feeds], *, power: PowerModel | None) -> Energy:  # noqa: ARG002
        """Return that it is unknown: the meters of the workstation would tell nothing of the device."""
        return Energy(energy_mj=None, provenance=EnergyProvenance.UNAVAILABLE)

    def _sent(self, body: IO[bytes]) -> LabAnswer:
        length = body.tell()
        body.seek(0)
        headers = {
            "Authorization": f"Bearer {self._token}",
            "Content-Length": str(length),
            "Content-Type": "application/zip",
        }
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        try:
            connection.request("POST", LAB_PATH, body=body, headers=headers)
            response = connection.getresponse()
            data = response.read(MOST_ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(
                f"{self.name}: {error}",
                required="an agent that listens on a port, with [lab] in its agent.toml",
                next_step="see docs/how-to/hardware-in-the-loop",
            ) from error
        finally:
            connection.close()
        if response.status != 200:
            raise HttpStatusError(
                f"{self.name} answered {response.status}: {data[:300].decode(errors='replace')}",
                required="the token of its [lab], and a request within its limits",
                next_step="see docs/how-to/hardware-in-the-loop",
            )
        try:
            return msgspec.json.decode(data, type=LabAnswer)
        except msgspec.DecodeError as error:
            raise UnreachableError(f"{self.name} is no agent of this version: {error}") from error


class LabRuntime:
    """A runtime whose outputs are computed here, and whose kernels are timed on the device."""

    def __init__(self, here: Runtime, lab: AgentLab) -> None:
        """Join the two."""
        self._here, self._lab = here, lab
        self.name = here.name

    def version(self) -> str:
        """Return both: what is kept of one device's times is not taken for another's."""
        about = self._lab.about
        return f"{self._here.version()} on {self._lab.name}, {about.processor}, {about.versions}"

    def load(self, model: Path | bytes, *, threads: int = 1, optimise: bool = True) -> Session:
        """Load here."""
        return self._here.load(model, threads=threads, optimise=optimise)

    def profile(
        self, model: Path | bytes, feeds: tuple[Mapping[str, Array], ...], *, threads: int = 1, rounds: int = 20
    ) -> tuple[KernelTime, ...]:
        """Profile on the device."""
        question = LabQuestion(
            measure=Measure.PROFILE,
            runtime=RuntimeName(self.name),
            threads=threads,
            models=("m0",),
            names=tuple(tuple(feed) for feed in feeds),
            rounds=rounds,
        )
        found = self._lab.ask(question, {"m0": model}, feeds)
        return tuple(KernelTime(**msgspec.structs.asdict(each)) for each in found.kernels)


def _pack(body: IO[bytes], question: LabQuestion, models: Mapping[str, Path | bytes], feeds: Sequence[Feeds]) -> None:
    """Write the request. Raises ConfigError for a model whose weights lie in other files."""
    arrays = io.BytesIO()
    # By number, for np.savez takes names as keywords and has some of its own.
    np.savez(arrays, *(value for feed in feeds for value in feed.values()))
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(QUESTION, msgspec.json.encode(question))
        archive.writestr(FEEDS, arrays.getvalue())
        for name, model in models.items():
            archive.writestr(f"{name}.onnx", model if isinstance(model, bytes) else model.read_bytes())
    body.seek(0, io.SEEK_END)
