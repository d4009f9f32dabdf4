"""The web map in headless Chromium, served by Envoy: log in, watch, follow, lose Envoy, go on.

`WAYFARE_PICTURES=docs/pictures make test ARGS="tests/e2e/test_web_map.py"` renews the pictures.
"""

import asyncio
import os
import re
import time
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from services.stack.environments import DEMO_ADMIN_PHONE, DEMO_TENANT_ID
from tests.support.e2e_browser import DESKTOP, PHONE, browser_page
from tests.support.e2e_buses import Bus, buses_under_way
from tests.support.e2e_edge import Edge
from tests.support.e2e_people import register
from tests.support.e2e_programs import run_program
from wayfare.location.v1 import trip_pb2

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.timeout(180)]

OUTAGE_SECONDS = 5.0


async def open_map(page: Page, edge: Edge, trip_id: str = "") -> None:
    wish = f"&trip={trip_id}" if trip_id else ""
    await page.goto(f"{edge.url}/app/?tenant={DEMO_TENANT_ID}{wish}")


async def log_in(page: Page, phone: str, password: str) -> None:
    await page.fill("#log-in [name=phone]", phone)
    await page.fill("#log-in [name=password]", password)
    await page.click("#log-in button[type=submit]")


async def log_in_as_admin(page: Page, edge: Edge) -> None:
    await log_in(page, DEMO_ADMIN_PHONE, edge.stack.admin_password)


async def picture(page: Page, name: str) -> None:
    """Keep what is seen, when somebody renews the documentation."""
    folder = os.environ.get("WAYFARE_PICTURES", "")
    if folder:
        # The map glides to the vehicle and draws.
        await asyncio.sleep(2)
        await page.screenshot(path=Path(folder) / f"{name}.png")


async def place_of(page: Page) -> tuple[float, float]:
    """Return where the followed vehicle is shown."""
    section = page.locator("#trip")
    latitude = await section.get_attribute("data-latitude")
    longitude = await section.get_attribute("data-longitude")
    return float(latitude or 0), float(longitude or 0)


async def until_moved(page: Page, times: int, *, seconds: float = 20) -> None:
    """Wait until the followed vehicle was shown at so many new places."""
    last, seen = await place_of(page), 0
    end = time.monotonic() + seconds
    while seen < times:
        assert time.monotonic() < end, f"the vehicle moved {seen} times in {seconds} seconds"
        await asyncio.sleep(0.2)
        now = await place_of(page)
        seen += now != last
        last = now


async def map_is_drawn(page: Page) -> None:
    """Check that lines and vehicles are on the map: a plain one makes a picture of few bytes."""
    end = time.monotonic() + 10
    while len(await page.locator("#map canvas").screenshot()) < 15_000:
        assert time.monotonic() < end, "the map stays empty"
        await asyncio.sleep(0.5)


async def test_staff_sees_the_fleet_follows_a_trip_and_survives_an_outage(
    private_edge: Edge,
) -> None:
    edge = private_edge
    async with buses_under_way(edge, 6) as buses, browser_page(DESKTOP) as page:
        await open_map(page, edge)
        await log_in_as_admin(page, edge)
        await expect(page.locator("#fleet li")).to_have_count(6)
        await expect(page.locator("#fleet .count")).to_have_text("6 of 6 online")
        await expect(page.locator("#connection")).to_have_text("live")
        await map_is_drawn(page)
        await picture(page, "fleet")

        chosen = buses[2]
        await page.click(f"#fleet button[data-vehicle='{chosen.vehicle_id}']")
        await expect(page.locator("#trip h2")).to_have_text(chosen.vehicle_id)
        await expect(page.locator("#trip .stops li").first).to_contain_text(
            _names_ahead(chosen), timeout=30_000
        )
        await until_moved(page, 3)
        await picture(page, "trip")

        await edge.stack.envoy.kill()
        await expect(page.locator("#connection")).to_have_attribute("data-state", "lost")
        lost_at = await place_of(page)
        await asyncio.sleep(OUTAGE_SECONDS)
        assert await place_of(page) == lost_at
        await edge.stack.envoy.start()

        await expect(page.locator("#connection")).to_have_text("live")
        await until_moved(page, 3)
        await expect(page.locator("#fleet li")).to_have_count(6)

        assert chosen.session is not None
        await chosen.session.send_status(trip_pb2.TRIP_STATUS_EMERGENCY)
        await expect(page.locator("#alerts .emergency")).to_have_count(1)
        await expect(page.locator("#trip .facts")).to_contain_text("calls for help")
        await picture(page, "alert")


def _names_ahead(bus: Bus) -> re.Pattern[str]:
    names = "|".join(re.escape(stop.display_name) for stop in bus.planned.stops)
    return re.compile(f"^({names})(now|in \\d+ min|\\d\\d:\\d\\d).*be there by")


async def test_a_passenger_follows_by_a_link_on_a_phone(edge: Edge) -> None:
    passenger = await register(edge, "PASSENGER")
    ids = [passenger.user_id]
    async with buses_under_way(edge, 1, follower_ids=ids) as buses, browser_page(PHONE) as page:
        await open_map(page, edge, buses[0].trip_id)
        await log_in(page, passenger.person.phone, passenger.person.password)
        await expect(page.locator("#trip h2")).to_have_text(buses[0].vehicle_id)
        await expect(page.locator("#trip .stops li").first).to_contain_text(
            "be there by", timeout=30_000
        )
        await until_moved(page, 2)

        assert await page.locator("#fleet").is_hidden()
        wide = await page.evaluate("document.documentElement.scrollWidth")
        assert wide <= PHONE[0]
        await picture(page, "phone")

        await page.reload()
        await expect(page.locator("#trip h2")).to_have_text(buses[0].vehicle_id)
        await page.click("#log-out")
        await expect(page.locator("#log-in")).to_be_visible()


async def test_a_refusal_is_said_in_words(edge: Edge) -> None:
    stranger = await register(edge, "PASSENGER")
    async with buses_under_way(edge, 1) as buses, browser_page(PHONE) as page:
        await open_map(page, edge, buses[0].trip_id)
        await log_in(page, stranger.person.phone, "not the password")
        await expect(page.locator("#log-in .refusal")).to_contain_text("phone")
        await log_in(page, stranger.person.phone, stranger.person.password)
        await expect(page.locator("#trip .facts")).to_contain_text("may not follow")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 302),
        ("/app", 302),
        ("/app/", 200),
        ("/app/app.js", 200),
        ("/app/../package.json", 404),
        ("/app/%2e%2e/package.json", 404),
        ("/app/..%2fpackage.json", 400),
        ("/app/none.js", 400),
    ],
)
async def test_the_page_is_served_and_nothing_beside_it(edge: Edge, path: str, status: int) -> None:
    result = await run_program(
        *("curl", "--silent", "--noproxy", "*", "--path-as-is", "--output", "/dev/null"),
        *("--write-out", "%{http_code}", edge.url + path),
    )

    assert result.output == str(status)
