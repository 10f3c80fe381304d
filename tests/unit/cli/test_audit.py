from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgewise.cli.agent import run
from edgewise.contracts.outcome import Outcome, OutcomeKind
from edgewise.device.audit.log import AuditLog
from edgewise.device.audit.reading import read_audit
from edgewise.errors import DataError


@pytest.fixture
def device(tmp_path: Path) -> Path:
    with AuditLog(tmp_path / "audit") as log:
        log.note(Outcome(kind=OutcomeKind.REFUSED, reason="\x1b[2Jlate", slack_ms=-2.5))
        log.flush()
        log.note(Outcome(kind=OutcomeKind.CLOUD, reason="unsure"))
    return tmp_path


def test_a_person_reads_the_log(device: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "--folder", str(device)]) == 0
    told = capsys.readouterr().out
    assert "slack -2.5 ms" in told
    assert "unsure" in told
    assert "\x1b" not in told
    assert "every line is as it was written" in told
    assert run(["audit", "--log", str(device / "audit"), "--last", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [each["reason"] for each in document["entries"]] == ["unsure"]
    assert (document["total"], document["problems"]) == (2, [])


def test_a_changed_log_is_told_by_the_exit_code(device: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = read_audit(device / "audit").head
    assert run(["audit", "--folder", str(device), "--head", head]) == 0
    assert run(["audit", "--folder", str(device), "--head", "0f" * 32]) == 1
    (log,) = (device / "audit").glob("audit-*.log")
    log.write_bytes(log.read_bytes().replace(b"unsure", b"secure"))
    assert run(["audit", "--folder", str(device), "--json"]) == 1
    assert "NOT AS WRITTEN" in capsys.readouterr().out
    with pytest.raises(DataError):
        run(["audit", "--log", str(device / "absent")])
