"""The interface as it describes itself: every route says who may use it, and nothing one can ask makes it fail."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok

from edgewise.fleet.api.app import ROUTES
from edgewise.fleet.auth import Access
from tests.conformance.fleet.clients import Fleet

METHODS = {"get", "put", "post", "delete"}


def test_every_route_says_who_may_use_it() -> None:
    assert [route.fn.__name__ for route in ROUTES if not isinstance(route.opt.get("access"), Access)] == []


def test_only_these_routes_are_for_everybody() -> None:
    public = {path for route in ROUTES if route.opt["access"] is Access.PUBLIC for path in route.paths}
    assert {path for path in public if "/controller/v1/" not in path} == {
        "/api/v1/enrol",
        "/console",
        "/console/{file:str}",
        "/health/live",
        "/health/ready",
        "/metrics",
    }


class TestOpenApi:
    def test_no_request_makes_the_server_fail(self, fleet: Fleet) -> None:
        document = fleet.http.get("/api/v1/schema/openapi.json").json()
        found = list(schemathesis.openapi.from_dict(document).get_all_operations())
        operations = [each.ok() for each in found if isinstance(each, Ok)]
        assert len(operations) == len(found), "the description can be read whole"
        assert len(operations) > 25
        for operation in operations:
            ask_anything(fleet, operation)

    def test_what_no_database_keeps_is_the_senders_fault(self, fleet: Fleet) -> None:
        assert fleet.http.get("/api/v1/devices?after=%00", headers=fleet.operator).status_code in {200, 400}
        assert fleet.http.get("/api/v1/devices/%00", headers=fleet.operator).status_code in {400, 404}


def ask_anything(fleet: Fleet, operation: Any) -> None:
    """Ask one route a few things that its description allows, as somebody who may do everything."""
    headers = fleet.signer if operation.method == "put" and "releases" in operation.path else fleet.operator

    @settings(
        max_examples=8,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def ask(data: st.DataObject) -> None:
        case = data.draw(operation.as_strategy())
        response = case.call(base_url=fleet.url, headers=headers)
        case.validate_response(response, checks=[not_a_server_error])

    ask()
