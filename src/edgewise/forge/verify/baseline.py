"""An earlier verification to compare with: its document, or a folder that holds it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgewise.contracts.verification import VERIFICATION_VERSION, Verification
from edgewise.errors import ConfigError
from edgewise.forge.verify.versions import check_version

DOCUMENT = "verification.json"
FOLDER = "verification"
"""Where the verification of a run is written, below the run."""
_MOST_BYTES = 256 << 20
_AGAIN = "verify the old variant again, with this edgewise"


def read_baseline(path: Path) -> Verification:
    """Return an earlier verification. Raises ConfigError where there is none at `path`."""
    places = [path, path / DOCUMENT, path / FOLDER / DOCUMENT]
    file = next((each for each in places if each.is_file()), None)
    if file is None:
        raise ConfigError(
            f"the baseline {path} holds no verification",
            required=f"a {DOCUMENT}, or the folder of a verification or of a verified run",
            next_step="run `edgewise verify` on the old variant first",
        )
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise ConfigError(
                f"the baseline {file} has {file.stat().st_size} bytes", required=f"a {DOCUMENT}", next_step=_AGAIN
            )
        data = file.read_bytes()
        check_version(data, supported=VERIFICATION_VERSION, name=f"the baseline {file}", next_step=_AGAIN)
        return msgspec.json.decode(data, type=Verification)
    except OSError as error:
        raise ConfigError(
            f"the baseline {file} cannot be read: {error.strerror}", required="a file", next_step="check --baseline"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the baseline {file} cannot be read: {error}"[:300],
            required=f"a {DOCUMENT} of this version",
            next_step=_AGAIN,
        ) from error
