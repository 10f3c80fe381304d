from __future__ import annotations

from pathlib import Path

import pytest

from edgewise.device.agent.settings import Settings, parse_listen, read_settings
from edgewise.errors import ConfigError


def read(folder: Path, text: str) -> Settings:
    path = folder / "agent.toml"
    path.write_text(text)
    return read_settings(path)


def test_no_file_is_the_defaults(tmp_path: Path) -> None:
    assert read_settings(tmp_path / "agent.toml") == Settings()


def test_sections_are_read(tmp_path: Path) -> None:
    found = read(tmp_path, 'quota_mib = 64\n[trial]\ntimeout_s = 5\n[fallback.cloud]\nurl = "https://x"\n')
    assert (found.quota_mib, found.trial.timeout_s) == (64, 5.0)
    assert found.fallback.cloud is not None
    assert not found.fallback.cloud.consent  # nothing leaves the device unless it is said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("quota_mb = 5", 'did you mean "quota_mib"'),
        ("[trail]\ntimeout_s = 1", 'did you mean "trial"'),
        ("[trial]\ntimeout = 1", 'did you mean "timeout_s"'),
        ("[fallback.cloud]\nurl = 'https://x'\nconcent = true", 'did you mean "consent"'),
        ("[trial]\ntimeout_s = 0", "timeout_s"),
        ("quota_mib = '64'", "quota_mib"),
        ("quota_mib = true", "quota_mib"),
        ("connections = 1000", "connections"),
        ("listen = '0.0.0.0:80'", "loopback"),
        ("trial = 3", "trial"),
        ("[fallback.cloud]\nconsent = true", "url"),
        ("x = ", "agent.toml"),
        ("\0", "agent.toml"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        read(tmp_path, text)
    assert "agent.toml" in str(caught.value) or "listen" in text


@pytest.mark.parametrize(
    "text",
    ["0.0.0.0:80", "example.com:80", "10.0.0.1:80", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:70000", "unix:", ":80",
     "", "unix:" + "x" * 108],
)  # fmt: skip
def test_an_address_that_others_could_reach_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_listen(text)


@pytest.mark.parametrize("text", ["unix:/run/edgewise/agent.sock", "127.0.0.1:0", "[::1]:9000", "127.8.0.1:1"])
def test_an_address_is_written_as_it_was_read(text: str) -> None:
    assert str(parse_listen(text)) == text
