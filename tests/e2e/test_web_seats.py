"""The page of seats in headless Chromium, served by Envoy: choose, hold, pay, show the ticket.

`WAYFARE_PICTURES=docs/pictures make test ARGS="tests/e2e/test_web_seats.py"` renews the pictures.
"""

import asyncio
import os
import re
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from services.stack.environments import DEMO_TENANT_ID
from tests.support.e2e_browser import DESKTOP, PHONE, browser_page
from tests.support.e2e_edge import Edge
from tests.support.e2e_people import register
from tests.support.e2e_seat_page import (
    enter_passengers,
    expect_mark,
    log_in,
    open_journey,
    seat,
)
from tests.support.e2e_seats import SoldTrip, book, call_off, fill_wallet, hold, sell_trip
from wayfare.booking.v1 import booking_service_pb2 as pb

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

OUTAGE_SECONDS = 3.0


async def picture(page: Page, name: str) -> None:
    """Keep what is seen, when somebody renews the documentation."""
    folder = os.environ.get("WAYFARE_PICTURES", "")
    if folder:
        await asyncio.sleep(1)
        await page.screenshot(path=Path(folder) / f"{name}.png")


async def test_seats_are_searched_held_paid_from_the_wallet_and_cancelled(edge: Edge) -> None:
    trip = await sell_trip(edge)
    passenger = await register(edge, "PASSENGER")
    await fill_wallet(edge, passenger.user_id, 50_000)
    await hold(edge, trip, "5B", "8A")
    await book(edge, trip, "2C", "2D", "7B")
    async with browser_page(DESKTOP) as page:
        await page.goto(f"{edge.url}/app/seats.html?tenant={DEMO_TENANT_ID}")
        await log_in(page, passenger)
        await page.fill("#search [name=from]", trip.from_stop_id)
        await page.fill("#search [name=to]", trip.to_stop_id)
        await page.fill("#search [name=day]", trip.day)
        await page.click("#search button[type=submit]")
        option = page.locator("#options .option")
        await expect(option).to_have_count(1)
        await expect(option).to_contain_text("Cairo, Ramses → Hurghada")
        await expect(option).to_contain_text("6 h 45 min")
        await expect(option).to_contain_text("Standard 120.00 EGP · 22 free (2 accessible)")
        await expect(option).to_contain_text("Comfort 180.00 EGP · 10 free")

        await option.get_by_role("button").click()
        await expect_mark(page, "5B", "held")
        await expect_mark(page, "7B", "booked")
        await expect(page.locator("#free-count")).to_have_text("32 seats free")
        for number in ("4A", "5A"):
            await seat(page, number).click()
        await expect(page.locator("#chosen")).to_have_text("Chosen: 4A, 5A · 240.00 EGP")
        await page.click("#hold-seats")
        await expect_mark(page, "5A", "mine")
        await expect(page.locator("#countdown")).to_have_text(re.compile(r"^(10:00|9:5\d)$"))
        await expect(page.locator("#methods .balance")).to_have_text("You have 500.00 EGP.")
        await picture(page, "seat-map")

        await enter_passengers(page, "Mona Hassan", "Omar Hassan")
        await page.click("#checkout button[type=submit]")
        await expect(page.locator("#booking .state")).to_contain_text("Booked")
        await expect(page.locator("#booking .ticket")).to_have_count(2)
        await expect(page.locator("#booking .ticket").first).to_contain_text("Mona Hassan")
        assert await _is_drawn(page.locator("#booking .qr").first)
        assert await _codes_are_tickets(edge, trip, page) == ["4A", "5A"]
        await picture(page, "ticket")
        follow = await page.locator("#booking .follow").get_attribute("href")
        assert follow == f"./?tenant={DEMO_TENANT_ID}&trip={trip.trip_id}"

        await page.get_by_role("button", name="Cancel this booking…").click()
        await expect(page.locator("#booking .cancel")).to_contain_text(
            "Cancelling costs 60.00 EGP. You get 180.00 EGP back."
        )
        await page.get_by_role("button", name="Cancel it for 60.00 EGP").click()
        await expect(page.locator("#booking .state")).to_have_text(
            "Cancelled. 180.00 EGP is back in your wallet."
        )
        await expect(page.locator("#booking .qr")).to_have_count(0)
        await page.click("#booking .back")
        await expect(page.locator("#bookings li")).to_contain_text("cancelled")


async def _is_drawn(image: Locator) -> bool:
    width: int = await image.evaluate("image => image.decode().then(() => image.naturalWidth)")
    return width > 200


async def _codes_are_tickets(edge: Edge, trip: SoldTrip, page: Page) -> list[str]:
    """Return the seats of the shown codes, as an inspector's phone reads them."""
    numbers = []
    async with edge.client(edge.mint.token("ADMIN")) as client:
        for image in await page.locator("#booking .qr").all():
            ticket_id = await image.locator("..").get_attribute("data-ticket") or ""
            ticket = await client.booking.GetTicket(pb.GetTicketRequest(ticket_id=ticket_id))
            assert ticket.trip_id == trip.trip_id
            assert ticket.token == await image.get_attribute("data-token")
            numbers.append(ticket.seat_number)
    return numbers


async def test_two_people_see_each_others_holds_at_once(edge: Edge) -> None:
    trip = await sell_trip(edge)
    async with browser_page(DESKTOP) as first, browser_page(DESKTOP) as second:
        await open_journey(first, edge, trip)
        await open_journey(second, edge, trip)
        await seat(second, "6A").click()
        await seat(second, "7C").click()

        await seat(first, "6A").click()
        await first.click("#hold-seats")

        await expect_mark(first, "6A", "mine")
        await expect_mark(second, "6A", "held")
        await expect(second.locator("#choice-message")).to_contain_text(
            "Seat 6A was just taken by somebody else"
        )
        await expect(second.locator("#chosen")).to_have_text("Chosen: 7C · 120.00 EGP")
        # Disabled for assistive technology, and yet says why.
        await seat(second, "6A").click(force=True)
        await expect(second.locator("#choice-message")).to_contain_text("may come free again")

        # The choice is changed in one step: the old seat is free, the new one is not.
        await seat(first, "6A").click()
        await seat(first, "6B").click()
        await first.get_by_role("button", name="Change my hold to 6B").click()
        await expect_mark(second, "6B", "held")
        await expect_mark(second, "6A", "free")
        await first.click("#release")
        await expect_mark(second, "6B", "free")
        await expect(first.locator("#hold")).to_be_hidden()


async def test_everything_can_be_done_with_the_keyboard_alone(edge: Edge) -> None:
    trip = await sell_trip(edge)
    async with browser_page(DESKTOP) as page:
        await open_journey(page, edge, trip)
        await page.focus("#journey .back")
        await page.keyboard.press("Tab")
        await expect(seat(page, "1A")).to_be_focused()
        for key in ("ArrowDown", "ArrowDown", "ArrowDown", "End", "ArrowLeft", "ArrowLeft"):
            await page.keyboard.press(key)
        # Over the aisle.
        await expect(seat(page, "4B")).to_be_focused()
        await expect(seat(page, "4B")).to_have_attribute(
            "aria-label", "Seat 4B, aisle, accessible, without steps, Standard, free, 120.00 EGP"
        )
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("Space")
        await expect(seat(page, "5B")).to_have_attribute("aria-pressed", "true")
        await page.keyboard.press("Home")
        await page.keyboard.press("Enter")
        await expect(page.locator("#chosen")).to_have_text("Chosen: 5A, 5B · 240.00 EGP")
        assert await page.locator("#seats [tabindex='0']").count() == 1

        await page.keyboard.press("Tab")
        await expect(page.locator("#hold-seats")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect_mark(page, "5B", "mine")
        name = page.locator("#passengers [name=name]")
        await name.first.focus()
        await page.keyboard.type("Mona Hassan")
        for _ in range(2):
            await page.keyboard.press("Tab")
        await page.keyboard.type("Omar Hassan")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Tab")
        # From the wallet to the last way to pay: radio buttons go round.
        await page.keyboard.press("ArrowUp")
        await expect(page.locator("#checkout button[type=submit]")).to_have_text(
            "Book, and pay 240.00 EGP in cash"
        )
        await page.keyboard.press("Enter")
        await expect(page.locator("#booking .ticket").first).to_contain_text(
            "Pay 120.00 EGP in cash"
        )


@pytest.mark.slow
async def test_a_hold_that_runs_out_is_said_and_its_seats_are_free(edge: Edge) -> None:
    trip = await sell_trip(edge, hold_seconds=30)
    async with browser_page(PHONE) as page:
        await open_journey(page, edge, trip)
        # A phone's clock may be wrong: the countdown does not look at it.
        await page.evaluate("Date.now = () => 0")
        await seat(page, "5C").click()
        await page.click("#hold-seats")
        await expect(page.locator("#countdown")).to_have_text(re.compile(r"^0:(30|2\d)$"))
        await page.reload()
        await expect_mark(page, "5C", "mine")
        await expect(page.locator("#countdown")).to_have_text(re.compile(r"^0:[12]\d$"))

        await expect(page.locator("#choice-message")).to_contain_text(
            "Your hold has run out", timeout=40_000
        )
        await expect_mark(page, "5C", "free")
        await expect(page.locator("#checkout")).to_be_hidden()


async def test_the_page_goes_on_after_envoy_was_away(private_edge: Edge) -> None:
    edge = private_edge
    trip = await sell_trip(edge)
    async with browser_page(DESKTOP) as page:
        await open_journey(page, edge, trip)
        await hold(edge, trip, "1A")
        await expect_mark(page, "1A", "held")
        await seat(page, "5A").click()

        await edge.stack.envoy.kill()
        await expect(page.locator("#connection")).to_have_attribute("data-state", "lost")
        await expect(page.locator("#seat-note")).to_contain_text("Connection lost")
        await asyncio.sleep(OUTAGE_SECONDS)
        # What is asked for meanwhile is asked again until somebody answers.
        await page.click("#hold-seats")
        await edge.stack.envoy.start()
        await hold(edge, trip, "2A")

        await expect(page.locator("#connection")).to_have_text("live")
        await expect(page.locator("#seat-note")).to_be_empty()
        await expect_mark(page, "2A", "held")
        await expect_mark(page, "5A", "mine")


async def test_what_was_missed_while_away_is_told_when_it_is_back(private_edge: Edge) -> None:
    edge = private_edge
    trip = await sell_trip(edge)
    async with browser_page(DESKTOP) as page:
        await open_journey(page, edge, trip)
        await seat(page, "3A").click()
        await page.context.set_offline(True)
        await page.evaluate("window.stop()")
        await expect(page.locator("#connection")).to_have_attribute("data-state", "lost")
        await hold(edge, trip, "3A")
        await page.context.set_offline(False)

        await expect_mark(page, "3A", "held")
        await expect(page.locator("#choice-message")).to_contain_text(
            "Seat 3A was just taken by somebody else"
        )


async def test_without_the_cache_the_page_says_so_and_seats_are_held_as_surely(
    private_edge: Edge,
) -> None:
    edge = private_edge
    trip = await sell_trip(edge)
    async with browser_page(DESKTOP) as page:
        await open_journey(page, edge, trip)
        await edge.stack.valkey.stop()
        await expect(page.locator("#seat-note")).to_contain_text("a second late", timeout=40_000)

        await hold(edge, trip, "7C")
        await expect_mark(page, "7C", "held")
        await seat(page, "6B").click()
        await page.click("#hold-seats")
        await expect_mark(page, "6B", "mine")


async def test_a_trip_that_is_called_off_is_said_on_the_open_page(edge: Edge) -> None:
    trip = await sell_trip(edge)
    async with browser_page(DESKTOP) as page:
        await open_journey(page, edge, trip)
        await seat(page, "9A").click()
        await call_off(edge, trip)

        await expect(page.locator("#seat-note")).to_contain_text("This trip does not run")
        await expect(page.locator("#hold-seats")).to_be_disabled()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("trip=00000000-0000-4000-8000-000000000000", "There is no such trip. Search again."),
        ("booking=00000000-0000-4000-8000-000000000000", "This booking is not yours."),
    ],
)
async def test_refusals_are_said_in_plain_words(edge: Edge, address: str, words: str) -> None:
    passenger = await register(edge, "PASSENGER")
    async with browser_page(PHONE) as page:
        await page.goto(f"{edge.url}/app/seats.html?tenant={DEMO_TENANT_ID}&{address}")
        await log_in(page, passenger)
        await expect(page.get_by_text(words)).to_be_visible()
