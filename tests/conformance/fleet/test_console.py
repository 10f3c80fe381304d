"""The console in a real browser, against the real server: what it shows, what it does, what it never does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from edgewise.contracts.budget import Budget
from edgewise.contracts.outcome import OutcomeKind
from edgewise.contracts.telemetry import encode_envelope
from tests.conformance.fleet.clients import Fleet
from tests.conformance.fleet.envelopes import envelope
from tests.conformance.fleet.rollouts import JSON, STAGE, draft, publish
from tests.unit.bundle.bundles import archive, files

CHROMIUM = Path("/usr/bin/chromium")
QUIET = ("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", *QUIET]
needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no {CHROMIUM}: apt-get install chromium")


@pytest.fixture
def browser(fleet: Fleet) -> Iterator[Browser]:  # noqa: ARG001 - a server is started with an event loop of its own
    """Yield the system's chromium, for one test and after its server: Playwright keeps a loop running."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield found
        found.close()


def signed_in(browser: Browser, fleet: Fleet, token: dict[str, str]) -> Page:
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    page.goto(f"{fleet.url}/console")
    page.get_by_label("Token of a viewer").fill(token["authorization"].removeprefix("Bearer "))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Fleets")).to_be_visible()
    return page


@pytest.fixture
def product() -> str:
    """Return a product for this test alone."""
    return f"product-{uuid4().hex[:8]}"


def publish_with_budget(fleet: Fleet, product: str) -> str:
    """Publish 1.0.0 with a limit of latency and return its digest."""
    manifest, content = files(product=product, version="1.0.0")
    data = archive(msgspec.structs.replace(manifest, budget=Budget(latency_p99_ms=1.5)), content)
    made = fleet.http.put(f"/api/v1/releases/{product}/1.0.0", content=data, headers=fleet.signer)
    assert made.status_code == 201, made.text
    digest: str = made.json()["digest"]
    return digest


def command(page: Page, name: str, reason: str) -> None:
    page.get_by_role("group", name="Commands").get_by_role("button", name=name).press("Enter")
    page.get_by_label("Reason").fill(reason)
    page.keyboard.press("Enter")


@needs_chromium
def test_a_rollout_goes_from_draft_over_approval_to_rollback(browser: Browser, fleet: Fleet, product: str) -> None:
    digest = publish_with_budget(fleet, product)
    publish(fleet, product, "1.1.0")
    device = fleet.device(product, labels=("canary",))
    sent = envelope(device.name, 0, release=digest, start_unix_ms=time.time_ns() // 10**6, requests=400)
    fleet.http.post("/api/v1/telemetry", content=encode_envelope(sent), headers=JSON, auth=device).raise_for_status()
    name = draft(fleet, product, [STAGE | {"approval": True, "bake_s": 3600}])
    page = signed_in(browser, fleet, fleet.operator)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    page.goto(f"{fleet.url}/console#/rollouts/{name}")
    state = page.locator("#state")
    expect(state).to_contain_text("draft")
    command(page, "Start", "<b>begin</b>")
    expect(page.get_by_role("table", name="Stages")).to_contain_text("awaiting approval")
    command(page, "Approve", "looks good")
    expect(page.get_by_role("table", name="Stages")).to_contain_text("watched")
    command(page, "Pause", "lunch")
    expect(state).to_contain_text("paused")
    command(page, "Resume", "back")
    expect(state).to_contain_text("staged")
    command(page, "Roll back", "too warm")
    expect(state).to_contain_text("rolled back")
    expect(page.get_by_role("group", name="Commands").get_by_role("button")).to_have_count(0)
    expect(page.get_by_role("status")).to_contain_text("rolled back")
    expect(page.get_by_text("<b>begin</b>")).to_be_visible()  # as text
    assert page.locator("main b").count() == 0
    page.goto(f"{fleet.url}/console#/fleets/{product}")
    chart = page.get_by_role("img", name="pi5, 1.0.0: 400 values")
    expect(chart).to_contain_text("p99 budget 1.5 ms")
    for each in ("devices", "releases", f"releases/{product}/1.1.0", "alerts", "audit", "rollouts"):
        page.goto(f"{fleet.url}/console#/{each}")
        expect(page.get_by_role("region").first).to_be_visible()
    assert faults == []
    page.close()


@needs_chromium
def test_a_viewer_is_refused_and_told_so(browser: Browser, fleet: Fleet, product: str) -> None:
    for version in ("1.0.0", "1.1.0"):
        publish(fleet, product, version)
    name = draft(fleet, product)
    page = signed_in(browser, fleet, fleet.token("viewer"))
    page.goto(f"{fleet.url}/console#/rollouts/{name}")
    command(page, "Start", "")
    expect(page.get_by_role("status")).to_contain_text("refused")
    expect(page.locator("#state")).to_contain_text("draft")
    assert page.evaluate("localStorage.length") == 0
    assert page.context.cookies() == []
    page.close()


def test_the_page_runs_no_script_but_its_own(fleet: Fleet) -> None:
    answer = fleet.http.get("/console")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "http" not in answer.text.replace("<!doctype html>", "")
    assert fleet.http.get("/console/pages.py").status_code == 404
    assert fleet.http.get("/console/..%2f..%2fauth.py").status_code == 404


def test_refusals_open_an_alert_that_an_operator_of_the_product_sees(fleet: Fleet, product: str) -> None:
    device = fleet.device(product)
    base = envelope(device.name, 0, start_unix_ms=time.time_ns() // 10**6)
    fields = {"outcomes": {OutcomeKind.LOCAL: 100, OutcomeKind.REFUSED: 50}}
    sent = type(base)(**{name: getattr(base, name) for name in base.__struct_fields__} | fields)
    fleet.http.post("/api/v1/telemetry", content=encode_envelope(sent), headers=JSON, auth=device).raise_for_status()
    until, found = time.monotonic() + 15, set[str]()
    reader = fleet.token("viewer", product)
    while found != {"page", "ticket"} and time.monotonic() < until:
        found = {each["burn"]["rule"] for each in fleet.http.get("/api/v1/alerts", headers=reader).json()}
        time.sleep(0.1)
    assert found == {"page", "ticket"}
    spending = fleet.http.get(f"/api/v1/alerts/{product}", headers=reader).json()
    assert (spending["total"], spending["bad"]) == (150, 50)
    other = fleet.token("viewer", "another")
    assert fleet.http.get("/api/v1/alerts", headers=other).json() == []
    assert fleet.http.get(f"/api/v1/alerts/{product}", headers=other).status_code == 404
    lines = fleet.http.get("/api/v1/audit?newest=true&limit=50", headers=reader).json()
    assert [line["action"] for line in lines].count("alert.open") == 2
