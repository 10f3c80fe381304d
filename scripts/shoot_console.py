"""Takes the pictures of the console for the docs: `edgewise demo`, then `python scripts/shoot_console.py runs/demo`.

The demo's server is started again on what it kept, and the system's chromium shows its pages. Within an hour of the
demo, or the chart of latency has nothing to show.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import httpx
import msgspec
from playwright.sync_api import Page, expect, sync_playwright

from edgewise.contracts.rollout import State
from edgewise.demo.loop.commands import Commands, stop
from edgewise.demo.loop.releases import PRODUCT
from edgewise.demo.loop.server import DATABASE, STORE
from edgewise.demo.loop.story import FOLDER
from edgewise.fleet.store.rollouts import Kept

IMAGES = Path(__file__).parents[1] / "docs" / "images"
CHROMIUM = "/usr/bin/chromium"
PORT = 8719
URL = f"http://127.0.0.1:{PORT}"
WIDTH = 1200
_READY_S = 60.0


def main() -> None:
    """Serve, sign in, and take each page in both colour schemes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the demo's output folder")
    parser.add_argument("--images", type=Path, default=IMAGES)
    options = parser.parse_args()
    folder = options.run.resolve() / FOLDER
    commands = Commands(folder, os.environ)
    made = commands.run("fleet", "token", "--role", "viewer", "--database", DATABASE, "--json")
    token: str = msgspec.json.decode(made)["token"]
    with (folder / "console.jsonl").open("ab") as log:
        place = ("--database", DATABASE, "--store", STORE, "--port", str(PORT))
        process = commands.start("fleet", "serve", *place, log=log)
        try:
            _ready()
            pages = {
                "rollout": f"rollouts/{_rolled_back(token)}",
                "fleet": f"fleets/{PRODUCT}",
            }
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
                page = browser.new_page(viewport={"width": WIDTH, "height": 700})
                _sign_in(page, token)
                for name, address in pages.items():
                    page.goto(f"{URL}/console#/{address}")
                    expect(page.locator("main table").first).to_be_visible()
                    page.wait_for_timeout(500)
                    _shoot(page, options.images / f"console-{name}")
                browser.close()
        finally:
            stop([process])


def _ready() -> None:
    until = time.monotonic() + _READY_S
    while True:
        try:
            if httpx.get(f"{URL}/health/ready", trust_env=False).is_success:
                return
        except httpx.HTTPError:
            if time.monotonic() > until:
                raise
        time.sleep(0.2)


def _rolled_back(token: str) -> str:
    """Return the newest rollout that was rolled back."""
    answer = httpx.get(f"{URL}/api/v1/rollouts", headers={"authorization": f"Bearer {token}"}, trust_env=False)
    found = msgspec.json.decode(answer.raise_for_status().content, type=list[Kept])
    return next(each.rollout.id for each in found if each.rollout.state is State.ROLLED_BACK)


def _sign_in(page: Page, token: str) -> None:
    page.goto(f"{URL}/console")
    page.get_by_label("Token of a viewer").fill(token)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Fleets")).to_be_visible()


def _shoot(page: Page, path: Path) -> None:
    page.emulate_media(color_scheme="light")
    page.screenshot(path=f"{path}-light.png", full_page=True)
    page.emulate_media(color_scheme="dark")
    page.screenshot(path=f"{path}-dark.png", full_page=True)


if __name__ == "__main__":
    main()
