"""The JSON Schemas of the documents, made from the values themselves."""

from __future__ import annotations

import msgspec

from edgewise.contracts.run import FORMAT_VERSION, Run
from edgewise.contracts.verification import VERIFICATION_VERSION, Verification

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def run_schema() -> str:
    """Return the schema of what `edgewise optimize --json` prints, as indented JSON text."""
    return _schema(f"edgewise run document, format version {FORMAT_VERSION}", Run)


def verification_schema() -> str:
    """Return the schema of what `edgewise verify --json` prints, as indented JSON text."""
    return _schema(f"edgewise verification document, format version {VERIFICATION_VERSION}", Verification)


def _schema(title: str, kind: type) -> str:
    schema = {"$schema": DIALECT, "title": title, **msgspec.json.schema(kind)}
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"
