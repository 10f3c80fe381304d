"""What the server counts of itself, for Prometheus. Each process has figures of its own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The figures of one process."""

    def __init__(self) -> None:
        """Start at zero."""
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "edgewise_requests", "Requests by route and status", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "edgewise_request_seconds", "Time to answer a request", ["route"], registry=self.registry
        )
        self.polls = Counter("edgewise_polls", "Reads of the repository by status", ["status"], registry=self.registry)
        self.envelopes = Counter(
            "edgewise_envelopes", "Envelopes by what became of them", ["fate"], registry=self.registry
        )
        self.inbox = Gauge("edgewise_inbox_envelopes", "Envelopes that wait to be written", registry=self.registry)
        self.unmerged = Gauge("edgewise_unmerged_envelopes", "Envelopes kept until merged", registry=self.registry)
        self.statements = Counter("edgewise_database_statements", "Statements to the database", registry=self.registry)
        self.ticks = Counter(
            "edgewise_leader_ticks",
            "Rounds of the leader's work by outcome",
            ["work", "outcome"],
            registry=self.registry,
        )

    def text(self) -> bytes:
        """Return the figures in Prometheus' text format."""
        return generate_latest(self.registry)
