"""Keeps scans and who is on board. Implements ports.tickets.BoardingStore."""

from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import asyncpg

from services.booking.domain.boarding import BoardingCounts, BoardingMark
from services.booking.domain.scanning import CountedScan, MadeScan, ScanKind, Ticket, with_heirs
from services.booking.ports.requests import WriteRequest
from services.booking.ports.tickets import BoardingTurn, CashTaking
from services.booking.ports.trips import NewEvent
from services.booking.store import events, requests
from services.booking.store.tickets import COLUMNS, ticket_of
from services.shared.clock import Clock
from services.shared.errors import RequestIdReusedError
from services.shared.postgres import Database, Session

if TYPE_CHECKING:
    from services.shared.postgres import Connection

_TURN = "SELECT 1 FROM booking.trips WHERE trip_id = $1 FOR NO KEY UPDATE"
_MADE = """
SELECT scan_id, ticket_id, device_id, kind, stop_index, scan_time, lets_on, reason,
  body_hash
FROM booking.scans WHERE tenant_id = $1 AND scan_id = ANY ($2::uuid[])
"""
_TICKETS = f"SELECT {COLUMNS} FROM booking.tickets WHERE ticket_id = ANY ($1::uuid[])"  # noqa: S608 - constants of ours
_HEIRS = f"""
SELECT {COLUMNS} FROM booking.tickets
WHERE passenger_id = ANY ($1::uuid[]) AND trip_id = $2 AND revoke_time IS NULL
"""  # noqa: S608 - constants of ours
_KEEP = """
INSERT INTO booking.scans (tenant_id, scan_id, trip_id, ticket_id, user_id, device_id, kind,
  stop_index, scan_time, lets_on, reason, body_hash, create_time)
SELECT $1, scan_id, $2, ticket_id, $3, device_id, kind, stop_index, scan_time, lets_on,
  reason, body_hash, $4
FROM unnest($5::uuid[], $6::uuid[], $7::text[], $8::text[], $9::smallint[], $10::timestamptz[],
  $11::boolean[], $12::text[], $13::bytea[])
  AS new (scan_id, ticket_id, device_id, kind, stop_index, scan_time, lets_on, reason,
    body_hash)
"""
_USE = """
UPDATE booking.tickets t SET use_scan_id = new.scan_id, use_device_id = new.device_id,
  use_stop_index = new.stop_index, use_time = new.scan_time
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::smallint[], $5::timestamptz[])
  AS new (ticket_id, scan_id, device_id, stop_index, scan_time)
WHERE t.ticket_id = new.ticket_id
"""
_TAKE = """
INSERT INTO booking.cash_takings (booking_id, tenant_id, ticket_id, scan_id, user_id, amount_minor,
  currency_code, take_time)
SELECT DISTINCT ON (t.booking_id) t.booking_id, t.tenant_id, t.ticket_id, t.use_scan_id, $2,
  (SELECT sum(other.cash_due_minor) FROM booking.tickets other
    WHERE other.booking_id = t.booking_id AND other.revoke_time IS NULL),
  t.currency_code, $3
FROM unnest($1::uuid[]) WITH ORDINALITY AS wanted (scan_id, place)
JOIN booking.tickets t ON t.use_scan_id = wanted.scan_id AND t.trip_id = $4
ORDER BY t.booking_id, wanted.place
ON CONFLICT (booking_id) DO NOTHING
"""
_TAKINGS = """
SELECT booking_id, ticket_id, amount_minor, currency_code FROM booking.cash_takings
WHERE booking_id = ANY ($1::uuid[])
"""
_BOOKING_VERSIONS = """
UPDATE booking.bookings b SET event_version = b.event_version + new.event_count
FROM unnest($1::uuid[], $2::bigint[]) AS new (booking_id, event_count)
WHERE b.booking_id = new.booking_id
RETURNING b.booking_id, b.event_version - new.event_count AS before
"""
_STRANGERS = """
SELECT passenger_id FROM unnest($2::uuid[]) AS wanted (passenger_id)
WHERE NOT EXISTS (SELECT 1 FROM booking.tickets t WHERE t.trip_id = $1
  AND t.passenger_id = wanted.passenger_id AND t.revoke_time IS NULL)
"""
_MARK = """
INSERT INTO booking.boarding_marks AS before
  (trip_id, passenger_id, tenant_id, user_id, state, mark_time)
SELECT $1, passenger_id, $2, $3, state, mark_time
FROM unnest($4::uuid[], $5::text[], $6::timestamptz[]) AS new (passenger_id, state, mark_time)
ON CONFLICT (trip_id, passenger_id) DO UPDATE
  SET user_id = excluded.user_id, state = excluded.state, mark_time = excluded.mark_time
  WHERE excluded.mark_time >= before.mark_time
"""

# Between a mark by hand and the scan that counts, the later one says where a passenger is.
STATE = """CASE WHEN m.mark_time >= coalesce(t.use_time, '-infinity') THEN m.state
    WHEN t.use_time IS NOT NULL THEN 'BOARDED' END"""
_BEFORE = """
SELECT stop_index, stop_time, unbooked_count, boarded_count, expected_count, no_show_count,
  count_time
FROM booking.boardings WHERE trip_id = $1
"""
_COUNT = f"""
SELECT count(*) AS expected, count(*) FILTER (WHERE {STATE} = 'NO_SHOW') AS no_show,
  count(*) FILTER (WHERE {STATE} = 'BOARDED' AND t.to_stop_index > $2) AS boarded
FROM booking.tickets t
LEFT JOIN booking.boarding_marks m ON m.trip_id = t.trip_id AND m.passenger_id = t.passenger_id
WHERE t.trip_id = $1 AND t.revoke_time IS NULL
"""  # noqa: S608 - constants of ours
_KEEP_COUNT = """
INSERT INTO booking.boardings (trip_id, tenant_id, stop_index, stop_time, unbooked_count,
  boarded_count, expected_count, no_show_count, count_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (trip_id) DO UPDATE SET stop_index = $3, stop_time = $4, unbooked_count = $5,
  boarded_count = $6, expected_count = $7, no_show_count = $8, count_time = $9
"""
_TRIP_VERSION = """
UPDATE booking.trips SET event_version = event_version + 1 WHERE trip_id = $1
RETURNING event_version
"""


class PostgresBoardingStore:
    """Gives turns on trips."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Take the database of role wayfare_booking."""
        self._database = database
        self._clock = clock

    @asynccontextmanager
    async def turn(self, tenant_id: str, trip_id: str) -> AsyncIterator[BoardingTurn]:
        """Take the turn of a trip; it commits when the block ends."""
        session = Session(tenant_id=tenant_id, role="SERVICE")
        async with self._database.transaction(session) as connection:
            await connection.execute(_TURN, trip_id)
            yield PostgresBoardingTurn(connection, tenant_id, trip_id, clock=self._clock)


class PostgresBoardingTurn:
    """Is an open transaction that has locked the trip's row."""

    def __init__(
        self, connection: "Connection", tenant_id: str, trip_id: str, *, clock: Clock
    ) -> None:
        """Take a connection on which the tenant is set."""
        self._connection = connection
        self._tenant_id = tenant_id
        self._trip_id = trip_id
        self._clock = clock

    async def made_scans(self, scan_ids: Collection[str]) -> dict[str, MadeScan]:
        """Return those of these scans that came before."""
        rows = await self._connection.fetch(_MADE, self._tenant_id, list(scan_ids))
        return {str(row["scan_id"]): _scan_of(row) for row in rows}

    async def tickets(self, ticket_ids: Collection[str]) -> dict[str, Ticket]:
        """Return these tickets of the tenant, of whatever trip, and the heirs of revoked ones."""
        if not ticket_ids:
            return {}
        rows = await self._connection.fetch(_TICKETS, list(ticket_ids))
        named = {str(row["ticket_id"]): ticket_of(row) for row in rows}
        revoked = [one.issued.passenger_id for one in named.values() if one.revoke_time is not None]
        if not revoked:
            return named
        heirs = map(ticket_of, await self._connection.fetch(_HEIRS, revoked, self._trip_id))
        return with_heirs(named, heirs)

    async def keep_scans(self, made: Sequence[MadeScan], *, user_id: str, now: datetime) -> None:
        """Keep scans."""
        try:
            await self._connection.execute(
                _KEEP,
                self._tenant_id,
                self._trip_id,
                user_id,
                now,
                [scan.scan_id for scan in made],
                [scan.ticket_id or None for scan in made],
                [scan.device_id for scan in made],
                [scan.kind for scan in made],
                [scan.stop_index for scan in made],
                [scan.scan_time for scan in made],
                [scan.lets_on for scan in made],
                [scan.reason for scan in made],
                [scan.body_hash for scan in made],
            )
        except asyncpg.UniqueViolationError as error:
            # Scans of a trip follow each other: this one came with another trip at this moment.
            raise RequestIdReusedError(made[0].scan_id) from error

    async def use(self, uses: Mapping[str, CountedScan]) -> None:
        """Write which scans of tickets count."""
        await self._connection.execute(
            _USE,
            list(uses),
            [use.scan_id for use in uses.values()],
            [use.device_id for use in uses.values()],
            [use.stop_index for use in uses.values()],
            [use.scan_time for use in uses.values()],
        )

    async def take_cash(self, scans: Sequence[CountedScan], *, user_id: str, now: datetime) -> None:
        """Record that what the bookings of these scans' tickets owe was taken."""
        scan_ids = [scan.scan_id for scan in scans]
        await self._connection.execute(_TAKE, scan_ids, user_id, now, self._trip_id)

    async def takings(self, booking_ids: Collection[str]) -> dict[str, CashTaking]:
        """Return what was taken of these bookings."""
        if not booking_ids:
            return {}
        rows = await self._connection.fetch(_TAKINGS, list(booking_ids))
        return {
            str(row["booking_id"]): CashTaking(
                booking_id=str(row["booking_id"]),
                ticket_id=str(row["ticket_id"]),
                amount_minor=row["amount_minor"],
                currency_code=row["currency_code"],
            )
            for row in rows
        }

    async def booking_versions(self, booking_ids: Sequence[str]) -> dict[str, int]:
        """Count up the events of bookings by how often each is named; return what they were."""
        counted = Counter(booking_ids)
        rows = await self._connection.fetch(
            _BOOKING_VERSIONS, sorted(counted), [counted[one] for one in sorted(counted)]
        )
        return {str(row["booking_id"]): row["before"] for row in rows}

    async def mark(self, marks: Sequence[BoardingMark], *, user_id: str) -> set[str]:
        """Keep marks that are later than those there; return passengers who are not on the trip."""
        if not marks:
            return set()
        passenger_ids = [mark.passenger_id for mark in marks]
        rows = await self._connection.fetch(_STRANGERS, self._trip_id, passenger_ids)
        if rows:
            return {str(row[0]) for row in rows}
        await self._connection.execute(
            _MARK,
            self._trip_id,
            self._tenant_id,
            user_id,
            passenger_ids,
            [mark.state for mark in marks],
            [mark.mark_time for mark in marks],
        )
        return set()

    async def claim(self, request: WriteRequest) -> bool:
        """Record a request; say whether it is new. Raises RequestIdReusedError."""
        now = self._clock.now()
        return await requests.claim(self._connection, request, self._trip_id, now) is None

    async def count(
        self, *, stop_index: int | None, stop_time: datetime, unbooked_count: int | None
    ) -> tuple[BoardingCounts, bool]:
        """Count who is on board and keep it; say whether it is another count than before."""
        before = await self._connection.fetchrow(_BEFORE, self._trip_id)
        stop = (0, stop_time) if before is None else (before["stop_index"], before["stop_time"])
        if stop_index is not None and (before is None or stop_time >= stop[1]):
            stop = (stop_index, stop_time)
        unbooked = before["unbooked_count"] if before else 0
        counts = await count_of(
            self._connection,
            self._trip_id,
            stop_index=stop[0],
            unbooked_count=unbooked if unbooked_count is None else unbooked_count,
            now=self._clock.now(),
        )
        changed = before is None or _differs(before, counts)
        if before is None or changed or stop[1] != before["stop_time"]:
            await self._connection.execute(
                _KEEP_COUNT,
                self._trip_id,
                self._tenant_id,
                *stop,
                counts.unbooked_count,
                counts.boarded_count,
                counts.expected_count,
                counts.no_show_count,
                counts.count_time,
            )
        return counts, changed

    async def trip_version(self) -> int:
        """Count up the events of the trip; return the number."""
        version: int = await self._connection.fetchval(_TRIP_VERSION, self._trip_id)
        return version

    async def keep_events(self, new: Sequence[NewEvent]) -> None:
        """Keep events."""
        await events.keep(self._connection, self._tenant_id, new)


async def count_of(
    connection: "Connection",
    trip_id: str,
    *,
    stop_index: int,
    unbooked_count: int,
    now: datetime,
) -> BoardingCounts:
    """Count who is on board of a trip at a stop."""
    row = await connection.fetchrow(_COUNT, trip_id, stop_index)
    if row is None:
        raise LookupError("a count has a row")
    return BoardingCounts(
        trip_id=trip_id,
        boarded_count=row["boarded"] + unbooked_count,
        expected_count=row["expected"],
        no_show_count=row["no_show"],
        unbooked_count=unbooked_count,
        stop_index=stop_index,
        count_time=now,
    )


def _differs(before: Any, counts: BoardingCounts) -> bool:
    names = ("boarded_count", "expected_count", "no_show_count", "unbooked_count", "stop_index")
    return any(before[name] != getattr(counts, name) for name in names)


def _scan_of(row: Any) -> MadeScan:
    return MadeScan(
        scan_id=str(row["scan_id"]),
        ticket_id=str(row["ticket_id"] or ""),
        device_id=row["device_id"],
        kind=ScanKind(row["kind"]),
        stop_index=row["stop_index"],
        scan_time=row["scan_time"],
        lets_on=row["lets_on"],
        reason=row["reason"],
        body_hash=row["body_hash"],
    )
