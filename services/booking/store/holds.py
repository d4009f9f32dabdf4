"""Turns holds into rows and back, and forgets those that ended."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from services.booking.domain.seats import HeldSeat, Hold, HoldState
from services.shared.postgres import Database, Session

COLUMNS = """hold_id::text, tenant_id::text, trip_id::text, user_id::text, state, from_stop_id,
  to_stop_id, from_stop_index, to_stop_index, seats, currency_code, expire_time, extension_count,
  is_together, booking_id::text, body_hash, create_time"""

_FORGET = "SELECT booking.forget_holds($1, $2)"


class PostgresEndedHolds:
    """Forgets holds that ended without a booking, of all tenants."""

    def __init__(self, database: Database) -> None:
        """Take the database of role wayfare_booking."""
        self._database = database

    async def forget(self, *, before: datetime, most: int) -> int:
        """Forget at most so many whose time was over before; return how many were forgotten."""
        async with self._database.transaction(Session(role="SWEEPER")) as connection:
            count: int = await connection.fetchval(_FORGET, before, most)
        return count


def hold_of(row: Any) -> Hold:
    """Return the hold of a row of COLUMNS."""
    return Hold(
        hold_id=row["hold_id"],
        tenant_id=row["tenant_id"],
        trip_id=row["trip_id"],
        user_id=row["user_id"],
        state=HoldState(row["state"]),
        from_stop_id=row["from_stop_id"],
        to_stop_id=row["to_stop_id"],
        from_stop_index=row["from_stop_index"],
        to_stop_index=row["to_stop_index"],
        seats=seats_of(row["seats"]),
        currency_code=row["currency_code"],
        expire_time=row["expire_time"],
        extension_count=row["extension_count"],
        together=row["is_together"],
        booking_id=row["booking_id"] or "",
        body_hash=row["body_hash"],
        create_time=row["create_time"],
    )


def seats_of(text: str) -> Sequence[HeldSeat]:
    """Return seats as the column has them: '12A/STANDARD/4500 12B/STANDARD/4500'."""
    parts = [seat.split("/") for seat in text.split(" ")]
    return tuple(HeldSeat(number, code, int(price)) for number, code, price in parts)


def text_of(seats: Sequence[HeldSeat]) -> str:
    """Return seats as the column has them."""
    return " ".join(f"{number}/{code}/{price}" for number, code, price in seats)
