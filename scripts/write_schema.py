"""Write the JSON Schemas of docs/reference from the values of `edgewise.contracts`."""

from __future__ import annotations

from pathlib import Path

from edgewise.contracts.schema import run_schema, verification_schema

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"

if __name__ == "__main__":
    for name, text in (("run", run_schema()), ("verification", verification_schema())):
        path = REFERENCE / f"{name}.schema.json"
        path.write_text(text, encoding="utf-8")
        print(path)
