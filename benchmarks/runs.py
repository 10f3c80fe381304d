"""One tool's run on one task, peer or ours: what it made, what it cost, how good it is.

`Run` is the row of every table and JSON document here. A run never raises for what the tool
does: it ends with a model, or with `failure` saying why there is none.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).resolve().parent
LIMIT_MIB, LIMIT_SECONDS = 10 * 1024, 1200
WORDS = 300  # how much of an error message is kept


@dataclass(kw_only=True)
class Run:
    """What one tool made of one task."""

    name: str
    ours: bool = False
    failure: str | None = None
    note: str = ""
    model: str | None = None
    size_mib: float | None = None
    # From meter.py: the whole process, imports included.
    wall_seconds: float | None = None
    cpu_seconds: float | None = None
    peak_rss_mib: float | None = None
    peak_tree_mib: float | None = None
    # From score.py and speed.py.
    quality: dict[str, Any] = field(default_factory=dict)
    speed: dict[str, Any] = field(default_factory=dict)
    latency_p50_ms: float | None = None
    # The tool's own words: a peer's JSON line, or the `chosen` of our JSON document.
    said: dict[str, Any] = field(default_factory=dict)

    @property
    def ran(self) -> bool:
        """Whether there is a model with a score and a speed."""
        return self.failure is None and bool(self.quality) and bool(self.speed)

    def cost(self, metered: dict[str, Any]) -> None:
        """Take over what meter.py found."""
        self.wall_seconds, self.cpu_seconds = metered["wall_seconds"], metered["cpu_seconds"]
        self.peak_rss_mib, self.peak_tree_mib = metered["peak_rss_mib"], metered["peak_tree_mib"]

    def made(self, model: Path) -> None:
        """Take over a model file, with the weights that lie beside it (external data)."""
        beside = (file for file in model.parent.iterdir() if file.name.startswith(model.name))
        self.model, self.size_mib = str(model), round(sum(file.stat().st_size for file in beside) / 2**20, 3)

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what save() wrote."""
        return cls(**json.loads(path.read_text()))


def metered(command: list[object], folder: Path) -> dict[str, Any]:
    """Run a command under meter.py; its output is in folder/stdout.txt and folder/stderr.txt."""
    report = folder / "meter.json"
    report.unlink(missing_ok=True)
    meter = [sys.executable, "-S", HERE / "meter.py", "--folder", folder]
    limits = ["--limit-mib", LIMIT_MIB, "--timeout", LIMIT_SECONDS]
    subprocess.run([str(part) for part in (*meter, *limits, "--", *command)], check=True)
    return dict(json.loads(report.read_text()))


def reason(meter: dict[str, Any], folder: Path) -> str:
    """Why a command failed, in one line: the limit it broke, or the last thing it said."""
    if meter["ended"]:
        return str(meter["ended"])
    for stream in ("stderr.txt", "stdout.txt"):
        lines = [line.strip() for line in (folder / stream).read_text(errors="replace").splitlines() if line.strip()]
        if lines:
            return lines[-1][:WORDS]
    return f"exit code {meter['exit_code']}, no output"


def last_json(text: str) -> dict[str, Any]:
    """Find the JSON object that a command printed: all of its output, or the last line of it."""
    for candidate in (text, *reversed(text.strip().splitlines())):
        try:
            found = json.loads(candidate)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return {}
