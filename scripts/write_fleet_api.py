"""Writes docs/reference/fleet-api.md from the routes: `python scripts/write_fleet_api.py`."""

from __future__ import annotations

from pathlib import Path

from edgewise.fleet.api.describe import describe_api

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "fleet-api.md"

if __name__ == "__main__":
    PAGE.write_text(describe_api(), encoding="utf-8")
    print(PAGE)
