"""What people do on the page of seats in a browser. Used by tests/e2e."""

from playwright.async_api import Locator, Page, expect

from tests.support.e2e_edge import Edge
from tests.support.e2e_people import Account, register
from tests.support.e2e_seats import SoldTrip


async def log_in(page: Page, account: Account) -> None:
    await page.fill("#log-in [name=phone]", account.person.phone)
    await page.fill("#log-in [name=password]", account.person.password)
    await page.click("#log-in button[type=submit]")


async def open_journey(page: Page, edge: Edge, trip: SoldTrip) -> Account:
    """Open a trip's seats as a passenger who has just signed up."""
    passenger = await register(edge, "PASSENGER")
    await page.goto(trip.address(edge))
    await log_in(page, passenger)
    await expect(page.locator("#connection")).to_have_text("live")
    await expect(seat(page, "1A")).to_be_visible()
    return passenger


def seat(page: Page, number: str) -> Locator:
    return page.locator(f"#seats [data-seat='{number}']")


async def expect_mark(page: Page, number: str, mark: str) -> None:
    await expect(seat(page, number)).to_have_attribute("data-mark", mark)


async def enter_passengers(page: Page, *names: str) -> None:
    for index, name in enumerate(names):
        await page.locator("#passengers [name=name]").nth(index).fill(name)


async def fits_the_width(page: Page, size: tuple[int, int]) -> bool:
    wide: int = await page.evaluate("document.documentElement.scrollWidth")
    return wide <= size[0]
