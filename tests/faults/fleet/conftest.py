"""The servers of the conformance laws, each test with its own."""

from __future__ import annotations

from tests.conformance.fleet.backends import postgresql, s3

__all__ = ["postgresql", "s3"]
