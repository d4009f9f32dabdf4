"""Keeps bookings. Implements ports.bookings.BookingStore."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from services.booking.domain.booking import PaymentState
from services.booking.domain.bookings import (
    CASH_AWAITED,
    Booking,
    BookingChanged,
    PassengerCarried,
    Tell,
    shows,
    told,
)
from services.booking.domain.passengers import SealedPassenger
from services.booking.domain.turns import Happening
from services.booking.ports.bookings import (
    BookingDetails,
    BookingListing,
    BookingReader,
    DueBooking,
    EndedTrip,
)
from services.booking.ports.trips import NewEvent
from services.booking.store import events
from services.booking.store.booking_rows import COLUMNS, booking_of, rows_text
from services.shared.clock import Clock
from services.shared.postgres import Database, Session

if TYPE_CHECKING:
    from services.shared.postgres import Connection

EventOf = Callable[[str, Happening, datetime], NewEvent]
_SWEEPER = Session(role="SWEEPER")
_LOOKED_BACK = timedelta(days=7)

_FIND = f"SELECT {COLUMNS} FROM booking.bookings b WHERE booking_id = ANY ($1::uuid[])"  # noqa: S608 - constants of ours
_LOCK = f"""
SELECT {COLUMNS} FROM booking.bookings b WHERE booking_id = ANY ($1::uuid[])
ORDER BY booking_id FOR NO KEY UPDATE
"""  # noqa: S608 - constants of ours
_LISTED = f"""
SELECT {COLUMNS} FROM booking.bookings b
WHERE tenant_id = $1 AND ($2::uuid IS NULL OR user_id = $2) AND ($3::uuid IS NULL OR trip_id = $3)
  AND ($4 = '' OR state = $4) AND ($5 = '' OR booking_code = $5)
  AND ($6::timestamptz IS NULL OR (create_time, booking_id) < ($6, $7::uuid))
ORDER BY create_time DESC, booking_id DESC LIMIT $8
"""  # noqa: S608 - constants of ours
_SEALED = """
SELECT passenger_id::text, booking_id::text, sealed FROM booking.passengers
WHERE booking_id = ANY ($1::uuid[])
"""
# Between a mark by hand and the scan that counts, the later one says where a passenger is.
_BOARDING = """
SELECT t.passenger_id::text, t.booking_id::text,
  CASE WHEN m.mark_time >= coalesce(t.use_time, '-infinity') THEN m.state
    WHEN t.use_time IS NOT NULL THEN 'BOARDED' END,
  t.use_time IS NOT NULL
FROM booking.tickets t
LEFT JOIN booking.boarding_marks m ON m.trip_id = t.trip_id AND m.passenger_id = t.passenger_id
WHERE t.booking_id = ANY ($1::uuid[]) AND t.revoke_time IS NULL
"""
_TAKE_DUE = """
UPDATE booking.bookings b SET next_time = $2, try_count = try_count + 1
FROM (SELECT booking_id FROM booking.bookings WHERE next_time <= $1
  ORDER BY next_time LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED) AS due
WHERE b.booking_id = due.booking_id
RETURNING b.tenant_id::text, b.booking_id::text
"""
_PUT_OFF = """
UPDATE booking.bookings SET next_time = $2,
  failure_reason = CASE WHEN $3 = '' THEN failure_reason ELSE $3 END
WHERE booking_id = $1 AND next_time IS NOT NULL
"""
_TAKINGS = """
SELECT tenant_id::text, booking_id::text FROM booking.cash_takings
WHERE book_time IS NULL ORDER BY take_time LIMIT $1
"""
_CASH_TOLD = """
UPDATE booking.cash_takings SET book_time = $2
WHERE booking_id = ANY ($1::uuid[]) AND book_time IS NULL
"""
_ENDED = """
SELECT tenant_id::text, trip_id::text, cancel_time IS NOT NULL FROM booking.trips t
WHERE (cancel_time BETWEEN $1::timestamptz - $3::interval AND $1
    OR (last_arrival_time BETWEEN $1::timestamptz - $3::interval AND $1 AND cancel_time IS NULL))
  AND NOT EXISTS (SELECT 1 FROM booking.trip_closings c WHERE c.trip_id = t.trip_id)
LIMIT $2
"""
_LIVE = f"""
SELECT {COLUMNS} FROM booking.bookings b
WHERE trip_id = $1 AND state IN ('PENDING_PAYMENT', 'CONFIRMED') ORDER BY booking_id LIMIT $2
"""  # noqa: S608 - constants of ours
_LOCK_CONFIRMED = f"""
SELECT {COLUMNS} FROM booking.bookings b
WHERE trip_id = $1 AND state = 'CONFIRMED' ORDER BY booking_id FOR NO KEY UPDATE
"""  # noqa: S608 - constants of ours
_CLOSE = """
INSERT INTO booking.trip_closings (trip_id, tenant_id, create_time) VALUES ($1, $2, $3)
ON CONFLICT DO NOTHING RETURNING 1
"""
# One statement: the way to PostgreSQL is taken once.
_WRITE = f"WITH kept AS ({events.KEEP}) SELECT booking.write_bookings($6::json)"


class PostgresBookingStore:
    """Keeps bookings in schema `booking`."""

    def __init__(self, database: Database, *, event_of: EventOf, clock: Clock) -> None:
        """Take the database of role wayfare_booking, and how events are made."""
        self._database = database
        self._event_of = event_of
        self._clock = clock

    async def find(self, reader: BookingReader, booking_id: str) -> Booking | None:
        """Return a booking that the reader may see, or None."""
        async with self._database.transaction(Session(**reader._asdict())) as connection:
            row = await connection.fetchrow(_FIND, [booking_id])
        return None if row is None else booking_of(row)

    async def find_many(self, tenant_id: str, booking_ids: Sequence[str]) -> dict[str, Booking]:
        """Return these bookings of a tenant by id."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            rows = await connection.fetch(_FIND, list(booking_ids))
        return {row["booking_id"]: booking_of(row) for row in rows}

    async def listed(
        self, reader: BookingReader, listing: BookingListing, *, most: int
    ) -> list[Booking]:
        """Return bookings, newest first."""
        before = listing.before or (None, None)
        async with self._database.transaction(Session(**reader._asdict())) as connection:
            rows = await connection.fetch(
                _LISTED,
                reader.tenant_id,
                listing.user_id or None,
                listing.trip_id or None,
                listing.state,
                listing.booking_code,
                *before,
                most,
            )
        return [booking_of(row) for row in rows]

    async def details(self, tenant_id: str, booking_ids: Sequence[str]) -> BookingDetails:
        """Return what is known of those who travel on these bookings."""
        ids = list(booking_ids)
        async with self._database.transaction(_service(tenant_id)) as connection:
            sealed = await connection.fetch(_SEALED, ids)
            boarding = await connection.fetch(_BOARDING, ids)
        return BookingDetails(
            passengers=[SealedPassenger(*row) for row in sealed],
            boarding={row[0]: row[2] for row in boarding if row[2]},
            used=frozenset(row[1] for row in boarding if row[3]),
        )

    async def tell(self, tenant_id: str, tells: Sequence[Tell]) -> dict[str, Booking]:
        """Tell bookings what happened; return them as they are then."""
        now = self._clock.now()
        async with self._database.transaction(_service(tenant_id)) as connection:
            rows = await connection.fetch(_LOCK, list({one.booking_id for one in tells}))
            before = {row["booking_id"]: booking_of(row) for row in rows}
            after = dict(before)
            for one in tells:
                booking = after.get(one.booking_id)
                following = None if booking is None else told(booking, one, now)
                if following is not None:
                    after[one.booking_id] = following
            changed = [one for one in after.values() if one != before[one.booking_id]]
            return after | await self._write(connection, tenant_id, before, changed)

    async def _write(
        self,
        connection: "Connection",
        tenant_id: str,
        before: Mapping[str, Booking],
        changed: Sequence[Booking],
        *extra: tuple[str, object],
    ) -> dict[str, Booking]:
        """Write bookings with the events that tell of it, and `extra` ones of theirs."""
        now = self._clock.now()
        bodies: dict[str, list[object]] = {}
        for booking in changed:
            if shows(before.get(booking.booking_id), booking):
                bodies.setdefault(booking.booking_id, []).append(BookingChanged(booking=booking))
        for booking_id, body in extra:
            bodies.setdefault(booking_id, []).append(body)
        written, made = {}, []
        for booking in changed:
            version = booking.event_version
            for body in bodies.get(booking.booking_id, ()):
                version += 1
                told_of = Happening("booking", booking.booking_id, version, body)
                made.append(self._event_of(tenant_id, told_of, now))
            written[booking.booking_id] = replace(booking, event_version=version)
        if written:
            await connection.execute(
                _WRITE, tenant_id, *events.columns(made), rows_text(written.values())
            )
        return written

    async def take_due(
        self, *, now: datetime, lease_until: datetime, most: int
    ) -> list[DueBooking]:
        """Take bookings that are due, so that no other process does before `lease_until`."""
        async with self._database.transaction(_SWEEPER) as connection:
            rows = await connection.fetch(_TAKE_DUE, now, lease_until, most)
        return [DueBooking(*row) for row in rows]

    async def put_off(
        self, tenant_id: str, booking_id: str, *, until: datetime | None, failure_reason: str = ""
    ) -> None:
        """Look at a booking again later."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            await connection.execute(_PUT_OFF, booking_id, until, failure_reason)

    async def cash_takings(self, *, most: int) -> list[DueBooking]:
        """Return the bookings whose fare was taken on board and is not told to them yet."""
        async with self._database.transaction(_SWEEPER) as connection:
            rows = await connection.fetch(_TAKINGS, most)
        return [DueBooking(*row) for row in rows]

    async def cash_told(self, tenant_id: str, booking_ids: Sequence[str], now: datetime) -> None:
        """Remember that bookings know of their fare."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            await connection.execute(_CASH_TOLD, list(booking_ids), now)

    async def ended_trips(self, *, now: datetime, most: int) -> list[EndedTrip]:
        """Return trips that are over or called off and were not looked after."""
        async with self._database.transaction(_SWEEPER) as connection:
            rows = await connection.fetch(_ENDED, now, most, _LOOKED_BACK)
        return [EndedTrip(*row) for row in rows]

    async def live_of_trip(self, tenant_id: str, trip_id: str, *, most: int) -> list[Booking]:
        """Return the bookings of a trip that keep seats."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            rows = await connection.fetch(_LIVE, trip_id, most)
        return [booking_of(row) for row in rows]

    async def close_trip(self, tenant_id: str, trip_id: str, *, now: datetime) -> int:
        """Say for whoever was carried that the trip has ended, once; return how many."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            if not await connection.fetchval(_CLOSE, trip_id, tenant_id, now):
                return 0
            rows = await connection.fetch(_LOCK_CONFIRMED, trip_id)
            before = {row["booking_id"]: booking_of(row) for row in rows}
            closed, carried = [], []
            for booking in before.values():
                unpaid = booking.saga.payment_state in (
                    PaymentState.DUE_ON_BOARD,
                    PaymentState.VOIDED,
                )
                amount_minor = 0 if unpaid else booking.saga.amount_minor
                body = PassengerCarried(
                    booking=booking, amount_minor=amount_minor, complete_time=now
                )
                carried.append((booking.booking_id, body))
                # A fare that nobody took lapses when no phone can tell of it any more.
                due_time = now + CASH_AWAITED if unpaid else booking.next_time
                closed.append(replace(booking, next_time=due_time))
            await self._write(connection, tenant_id, before, closed, *carried)
        return len(carried)


def _service(tenant_id: str) -> Session:
    return Session(tenant_id=tenant_id, role="SERVICE")
