"""The JSON Schema of the run document, made from the values themselves."""

from __future__ import annotations

import msgspec

from edgewise.contracts.run import FORMAT_VERSION, Run

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def run_schema() -> str:
    """Return the schema of what `edgewise optimize --json` prints, as indented JSON text."""
    schema = {
        "$schema": DIALECT,
        "title": f"edgewise run document, format version {FORMAT_VERSION}",
        **msgspec.json.schema(Run),
    }
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"
