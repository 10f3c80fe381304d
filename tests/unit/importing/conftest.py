"""Here the import itself is looked at."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def imported_once() -> None:
    """Start a process for each import, unlike the other unit tests."""
