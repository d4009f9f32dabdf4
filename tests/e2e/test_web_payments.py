"""Paying at a gateway from the page of seats, in headless Chromium: deposits, cards, who pays."""

from urllib.parse import urlsplit

import pytest
from playwright.async_api import Route, expect

from services.stack.payment_gateways import payment_accounts
from tests.support.e2e_browser import PHONE, browser_page
from tests.support.e2e_edge import Edge
from tests.support.e2e_seat_page import enter_passengers, fits_the_width, open_journey, seat
from tests.support.e2e_seats import fill_wallet, sell_trip
from tests.support.gateway_double import GatewayDouble

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

PAYER = {
    "First name": "Mona",
    "Last name": "Hassan",
    "E-mail": "mona@example.com",
    "Phone": "0771234567",
    "Address": "1 Galle Road",
    "City": "Colombo",
    "Country": "Sri Lanka",
}


async def pass_on(route: Route, address: str) -> None:
    """Let another server on loopback answer what the page asks of a host."""
    here = urlsplit(route.request.url)._replace(scheme="http", netloc=address).geturl()
    await route.fulfill(response=await route.fetch(url=here))


async def test_a_phone_finds_the_best_seats_and_lacks_money_until_a_deposit_comes(
    edge: Edge,
) -> None:
    trip = await sell_trip(edge)
    async with (
        GatewayDouble(payment_accounts(edge.stack.secrets)) as gateway,
        browser_page(PHONE) as page,
    ):
        passenger = await open_journey(page, edge, trip)
        await fill_wallet(edge, passenger.user_id, 3_000)
        assert await fits_the_width(page, PHONE)
        await page.fill("#best [name=count]", "3")
        await page.click("#best button")
        await expect(page.locator("#seats [data-mark='mine']")).to_have_count(3)
        await expect(page.locator("#shortfall")).to_contain_text(
            "330.00 EGP is missing in your wallet"
        )
        pay = page.locator("#checkout button[type=submit]")
        await expect(pay).to_be_disabled()
        assert await fits_the_width(page, PHONE)

        await page.get_by_role("button", name="Add 330.00 EGP").click()
        address = await page.locator("a#deposit").get_attribute("href")
        assert await gateway.check_out(address or "", {}) == 200
        (order_id,) = gateway.orders
        assert (await gateway.tell(order_id)).status_code == 200

        await expect(page.locator("#methods .balance")).to_contain_text("enough now")
        await enter_passengers(page, "Mona", "Omar", "Salma")
        await pay.click()
        await expect(page.locator("#booking .ticket")).to_have_count(3)
        assert await fits_the_width(page, PHONE)
        await page.reload()
        await expect(page.locator("#booking .ticket")).to_have_count(3)


async def test_a_card_is_paid_at_the_gateway_while_the_seats_are_kept(edge: Edge) -> None:
    trip = await sell_trip(edge)
    async with (
        GatewayDouble(payment_accounts(edge.stack.secrets)) as gateway,
        browser_page(PHONE) as page,
    ):
        await open_journey(page, edge, trip)
        await seat(page, "9D").click()
        await page.click("#hold-seats")
        await page.click("#extend")
        await expect(page.locator("#extend")).to_be_hidden()
        await enter_passengers(page, "Mona Hassan")
        await page.get_by_label("Card, on the page of Kashier").check()
        await page.click("#checkout button[type=submit]")
        await expect(page.locator("#booking .state")).to_have_text(
            "Pay now, and the seats are yours."
        )
        link = page.locator("#booking .payment a")
        await expect(link).to_have_text("Pay 120.00 EGP on the page of Kashier")
        assert await gateway.check_out(await link.get_attribute("href") or "", {}) == 200
        (order_id,) = gateway.orders
        assert (await gateway.tell(order_id)).status_code == 200

        await expect(page.locator("#booking .ticket")).to_contain_text("Seat 9D")
        await expect(link).to_have_count(0)


async def test_payhere_is_told_who_pays_by_a_form_that_opens_beside_the_seats(edge: Edge) -> None:
    trip = await sell_trip(edge, currency_code="LKR")
    async with (
        GatewayDouble(payment_accounts(edge.stack.secrets)) as gateway,
        browser_page(PHONE) as page,
    ):
        # The vendor's host is not to be reached from here: its page is the double's.
        await page.context.route(
            "https://*.payhere.lk/**", lambda route: pass_on(route, gateway.address)
        )
        await open_journey(page, edge, trip)
        await seat(page, "9D").click()
        await page.click("#hold-seats")
        await enter_passengers(page, "Mona Hassan")
        await page.get_by_label("Card, on the page of PayHere").check()
        await page.click("#checkout button[type=submit]")
        form = page.locator("#booking .payment form")
        pay = form.get_by_role("button", name="Pay 120.00 LKR on the page of PayHere")
        await expect(pay).to_be_visible()
        assert await fits_the_width(page, PHONE)

        await pay.click()
        assert gateway.orders == {}
        for label, value in PAYER.items():
            await form.get_by_label(label).fill(value)
        async with page.expect_popup() as opened:
            await pay.click()
        await expect((await opened.value).locator("h1")).to_have_text("Pay 120.00")
        (order_id,) = gateway.orders
        assert (await gateway.tell(order_id)).status_code == 200

        await expect(page.locator("#booking .ticket")).to_contain_text("Seat 9D")
        await expect(form).to_have_count(0)
