"""What the owner of a device declares in agent.toml reaches the model that answers, and its log."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewise.contracts.outcome import OutcomeKind
from edgewise.device.agent.settings import Settings
from edgewise.device.audit.reading import read_audit
from edgewise.device.fallback.conservative import Conservative
from edgewise.device.fallback.options import FallbackOptions
from edgewise.device.slots import MOST_STARTS
from edgewise.errors import ConfigError
from tests.faults.device.agents import enrol, publish, started
from tests.faults.device.bundles import sample
from tests.faults.trust.fleet import Fleet, served

FITS = Settings(fallback=FallbackOptions(conservative=Conservative(outputs={"y": [[0.0, 1.0]]})))
DOES_NOT = Settings(fallback=FallbackOptions(conservative=Conservative(outputs={"z": [[0.0, 1.0]]})))


def test_fallbacks_are_given_and_logged_and_wrong_settings_cost_no_bundle(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    with served(fleet.store) as url:
        fleet.direct(publish(fleet, "1.2.0"))
        folder = enrol(fleet, url)
        with started(folder, FITS) as agent:
            assert agent.poll().result == "updated"
            serving = agent._serving
            assert serving.infer({"x": sample()}).outcome.kind is OutcomeKind.LOCAL
            answer = serving.infer({"x": sample()[:, :1]})
            assert answer.outcome.kind is OutcomeKind.CONSERVATIVE
            assert answer.outputs["y"].tolist() == [[0.0, 1.0]]
        (entry,) = read_audit(folder / "audit").entries
        assert (entry.kind, entry.count) == (OutcomeKind.CONSERVATIVE, 1)
        for _ in range(MOST_STARTS + 1):
            with pytest.raises(ConfigError, match="z"), started(folder, DOES_NOT):
                pass
        with started(folder, FITS) as agent:
            assert agent._serving.infer({"x": sample()}).outcome.kind is OutcomeKind.LOCAL
