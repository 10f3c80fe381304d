"""Write docs/reference/run.schema.json from the values of `edgewise.contracts.run`."""

from __future__ import annotations

from pathlib import Path

from edgewise.contracts.schema import run_schema

TARGET = Path(__file__).parents[1] / "docs" / "reference" / "run.schema.json"

if __name__ == "__main__":
    TARGET.write_text(run_schema(), encoding="utf-8")
    print(TARGET)
