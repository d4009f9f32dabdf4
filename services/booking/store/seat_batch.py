"""SQL of one batch of changes of seats: lock, look, record."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import asyncpg

from services.booking.domain.layouts import SeatLayout
from services.booking.domain.seats import Claim, Hold, SeatState, TripSeats
from services.booking.domain.trips import Trip
from services.booking.domain.turns import TripTurn, WantedChange
from services.booking.ports.seats import LockedTrip, SeatBatchConflictError, TakenTurns
from services.booking.ports.trips import NewEvent
from services.booking.store.holds import COLUMNS, hold_of, text_of

if TYPE_CHECKING:
    from services.shared.postgres import Connection

# Lists of ids travel as the text of arrays: asyncpg looks at each element of an array several
# times. None of these values needs quotes.

_TAKE = """
SELECT kind, id, first_number, second_number, third_number, moment, caller_id, method, body_hash,
  resource_id
FROM booking.take_turns($1, $2::text::uuid[], $3::text::uuid[], $4, $5, $6, $7::text::uuid[])
"""

# In the order of their ids, so that no two batches wait for each other. Id by id, because row-level
# security makes the planner expect one row, and it would go through all trips for each.
_TAKE_FREE = """
SELECT t.* FROM (SELECT id FROM unnest($1::text::uuid[]) AS id ORDER BY id) AS wanted
CROSS JOIN LATERAL (
  SELECT trip_id::text, seat_version, event_version, batch_count, update_time
  FROM booking.trips WHERE trip_id = wanted.id FOR NO KEY UPDATE SKIP LOCKED) AS t
"""

_CLAIMS = """
SELECT c.* FROM unnest($1::text::uuid[]) AS wanted (id)
CROSS JOIN LATERAL (
  SELECT trip_id::text, seat_number, state, owner_id::text, sum(1::bigint << leg_index)::bigint
  FROM booking.seat_claims WHERE trip_id = wanted.id
  GROUP BY trip_id, seat_number, state, owner_id OFFSET 0) AS c
"""

_LIVE_HOLDS = f"""
SELECT h.* FROM unnest($1::text::uuid[]) AS wanted (id)
CROSS JOIN LATERAL (
  SELECT {COLUMNS} FROM booking.holds
  WHERE trip_id = wanted.id AND state IN ('ACTIVE', 'PAYING') OFFSET 0) AS h
"""  # noqa: S608 - constants of ours

_HOLDS = f"""
SELECT h.* FROM unnest($1::text::uuid[]) AS wanted (id)
CROSS JOIN LATERAL (
  SELECT {COLUMNS} FROM booking.holds WHERE hold_id = wanted.id OFFSET 0) AS h
"""  # noqa: S608 - constants of ours

# One statement: the way to PostgreSQL is taken once.
_RECORD = """
WITH new_holds AS (
  INSERT INTO booking.holds (hold_id, tenant_id, trip_id, user_id, state, from_stop_id, to_stop_id,
    from_stop_index, to_stop_index, seats, currency_code, expire_time, extension_count, is_together,
    booking_id, body_hash, create_time)
  SELECT hold_id, $1, trip_id, user_id, state, from_stop_id, to_stop_id, from_stop_index,
    to_stop_index, seats, currency_code, expire_time, extension_count, is_together, booking_id,
    body_hash, $2
  FROM unnest($3::text::uuid[], $4::text::uuid[], $5::text::uuid[], $6::text::text[], $7::text[],
    $8::text[], $9::text::smallint[], $10::text::smallint[], $11::text[], $12::text::text[],
    $13::timestamptz[], $14::text::smallint[], $15::text::boolean[], $16::text::uuid[],
    $17::bytea[])
    AS n (hold_id, trip_id, user_id, state, from_stop_id, to_stop_id, from_stop_index,
      to_stop_index, seats, currency_code, expire_time, extension_count, is_together, booking_id,
      body_hash)
), new_events AS (
  INSERT INTO booking.events
    (aggregate_type, aggregate_id, aggregate_version, tenant_id, envelope)
  SELECT aggregate_type, aggregate_id, aggregate_version, $1, envelope
  FROM unnest($18::text::text[], $19::text::text[], $20::text::bigint[], $21::bytea[])
    AS n (aggregate_type, aggregate_id, aggregate_version, envelope)
), new_requests AS (
  INSERT INTO booking.requests
    (tenant_id, caller_id, method, request_id, body_hash, resource_id, create_time)
  SELECT $1, caller_id, method, request_id, body_hash, resource_id, $2
  FROM unnest($22::text[], $23::text[], $24::text::uuid[], $25::bytea[], $26::text::uuid[])
    AS n (caller_id, method, request_id, body_hash, resource_id)
)
SELECT booking.write_seats($1, $27::text::uuid[], $28::text::bigint[], $29::text::bigint[],
  $30::text::uuid[], $31::text::text[], $32::timestamptz[], $33::text::smallint[],
  $34::text::uuid[],
  $35::text::uuid[], $36::text::text[], $37::text::bigint[], $38::text::uuid[],
  $39::text::uuid[], $40::text::text[], $41::text::bigint[], $42::text::uuid[],
  $43::text::text[], $44::text::uuid[],
  $45::text::uuid[], $46::text::text[], $47::text::bigint[], $48::text::text[],
  $49::text::uuid[])
"""


class StorePart(Protocol):
    """Reads and writes what changes of seats are about besides seats, in the same transaction.

    `load` is called when the trips are locked and their seats known, `write` with the rows that the
    changes asked for by the part's name.
    """

    @property
    def name(self) -> str:
        """Return the name that rows and what is read go by."""
        ...

    async def load(
        self,
        connection: "Connection",
        tenant_id: str,
        wanted: Sequence[tuple[WantedChange, TripTurn]],
    ) -> Any:
        """Return what these changes need to know."""
        ...

    async def write(
        self, connection: "Connection", tenant_id: str, rows: Sequence[Any], now: datetime
    ) -> None:
        """Write rows in the order in which changes asked for them."""
        ...


class TripReader(Protocol):
    """Reads trips with their layouts in an open transaction."""

    async def read(
        self, connection: "Connection", trip_ids: Collection[str]
    ) -> dict[str, tuple[Trip, SeatLayout]]:
        """Return these trips by id."""
        ...


class PostgresSeatBatch:
    """Is one open transaction. Implements ports.seats.SeatBatch."""

    def __init__(
        self,
        connection: "Connection",
        tenant_id: str,
        *,
        trips: TripReader,
        parts: Mapping[str, StorePart],
    ) -> None:
        """Take a transaction of role SERVICE; `made` are the new holds that it records."""
        self._connection = connection
        self._tenant_id = tenant_id
        self._trips = trips
        self._parts = parts
        self.made: list[Hold] = []

    async def take_turns(
        self, wanted: Sequence[WantedChange], *, now: datetime, skip_locked: bool
    ) -> TakenTurns:
        """Lock the trips in the order of their ids, count holds, and look for earlier calls."""
        trip_ids = {one.trip_id for one in wanted}
        if skip_locked:
            rows = await self._connection.fetch(_TAKE_FREE, _array(trip_ids))
            return TakenTurns({row[0]: LockedTrip(*row[1:]) for row in rows}, {}, {})
        keys = [one.request for one in wanted if one.request is not None]
        try:
            rows = await self._connection.fetch(
                _TAKE,
                self._tenant_id,
                _array(trip_ids),
                _array({one.limited_user_id for one in wanted if one.limited_user_id}),
                now,
                [key.caller_id for key in keys],
                [key.method for key in keys],
                _array(key.request_id for key in keys),
            )
        except (asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError) as error:
            raise SeatBatchConflictError(str(error)) from error
        taken = TakenTurns({}, {}, {})
        for kind, id_, first, second, third, moment, *request in rows:
            if kind == "TRIP":
                taken.trips[id_] = LockedTrip(first, second, third, moment)
            elif kind == "USER":
                taken.live_hold_counts[id_] = first
            else:
                caller_id, method, body_hash, resource_id = request
                taken.requests[caller_id, method, id_] = (body_hash, resource_id)
        return taken

    async def trips(self, trip_ids: Collection[str]) -> dict[str, tuple[Trip, SeatLayout]]:
        """Return locked trips with their layouts."""
        return await self._trips.read(self._connection, trip_ids)

    async def seats(self, versions: Mapping[str, int]) -> dict[str, TripSeats]:
        """Return who has the seats of locked trips, whose versions these are."""
        return await read_seats(self._connection, versions)

    async def holds(self, hold_ids: Collection[str]) -> dict[str, Hold]:
        """Return these holds, whatever became of them."""
        rows = await self._connection.fetch(_HOLDS, _array(hold_ids))
        return {row["hold_id"]: hold_of(row) for row in rows}

    async def parts(self, wanted: Sequence[tuple[WantedChange, TripTurn]]) -> dict[str, Any]:
        """Return what the parts of the store read for these changes."""
        return {
            name: await part.load(self._connection, self._tenant_id, wanted)
            for name, part in self._parts.items()
        }

    async def record(self, turns: Sequence[TripTurn], events: Sequence[NewEvent]) -> None:
        """Write what was changed."""
        now = turns[0].now
        try:
            await self._connection.execute(_RECORD, *_columns(self._tenant_id, now, turns, events))
            rows: dict[str, list[Any]] = {}
            for turn in turns:
                for name, row in turn.rows:
                    rows.setdefault(name, []).append(row)
            for name, those in rows.items():
                await self._parts[name].write(self._connection, self._tenant_id, those, now)
            self.made = [hold for turn in turns for hold in turn.seats.new_holds()]
        except (
            asyncpg.UniqueViolationError,
            asyncpg.DeadlockDetectedError,
            asyncpg.LockNotAvailableError,
        ) as error:
            raise SeatBatchConflictError(str(error)) from error
        except asyncpg.PostgresError as error:
            if getattr(error, "sqlstate", "") != "WB002":
                raise
            raise SeatBatchConflictError(str(error)) from error


async def read_seats(connection: "Connection", versions: Mapping[str, int]) -> dict[str, TripSeats]:
    """Return who has the seats of trips, whose versions these are."""
    ids = _array(versions)
    claims: dict[str, list[tuple[str, Claim]]] = {trip_id: [] for trip_id in versions}
    for trip_id, seat_number, state, owner_id, legs in await connection.fetch(_CLAIMS, ids):
        claims[trip_id].append((seat_number, Claim(legs, SeatState(state), owner_id)))
    holds: dict[str, list[Hold]] = {trip_id: [] for trip_id in versions}
    for row in await connection.fetch(_LIVE_HOLDS, ids):
        holds[row["trip_id"]].append(hold_of(row))
    return {
        trip_id: TripSeats(version=version, claims=claims[trip_id], holds=holds[trip_id])
        for trip_id, version in versions.items()
    }


def _columns(
    tenant_id: str, now: datetime, turns: Sequence[TripTurn], events: Sequence[NewEvent]
) -> tuple[Any, ...]:
    return (
        tenant_id,
        now,
        *_new_hold_columns(turns),
        _array(event.aggregate_type for event in events),
        _array(event.aggregate_id for event in events),
        _array(event.aggregate_version for event in events),
        [event.envelope for event in events],
        *_request_columns(turns),
        _array(turn.trip.trip_id for turn in turns),
        _array(turn.seats.version + bool(turn.seats.changes) for turn in turns),
        _array(turn.event_version for turn in turns),
        *_changed_hold_columns(turns),
        *_claim_columns(turns),
    )


def _new_hold_columns(turns: Iterable[TripTurn]) -> Sequence[Any]:
    holds = [hold for turn in turns for hold in turn.seats.new_holds()]
    return (
        _array(hold.hold_id for hold in holds),
        _array(hold.trip_id for hold in holds),
        _array(hold.user_id for hold in holds),
        _array(hold.state for hold in holds),
        [hold.from_stop_id for hold in holds],
        [hold.to_stop_id for hold in holds],
        _array(hold.from_stop_index for hold in holds),
        _array(hold.to_stop_index for hold in holds),
        [text_of(hold.seats) for hold in holds],
        _array(hold.currency_code for hold in holds),
        [hold.expire_time for hold in holds],
        _array(hold.extension_count for hold in holds),
        _array("t" if hold.together else "f" for hold in holds),
        _array(hold.booking_id or "NULL" for hold in holds),
        [hold.body_hash for hold in holds],
    )


def _changed_hold_columns(turns: Iterable[TripTurn]) -> Sequence[Any]:
    holds = [hold for turn in turns for hold in turn.seats.changed_holds()]
    return (
        _array(hold.hold_id for hold in holds),
        _array(hold.state for hold in holds),
        [hold.expire_time for hold in holds],
        _array(hold.extension_count for hold in holds),
        _array(hold.booking_id or "NULL" for hold in holds),
    )


def _request_columns(turns: Iterable[TripTurn]) -> Sequence[Any]:
    made = [request for turn in turns for request in turn.requests]
    return (
        [key.caller_id for key, _ in made],
        [key.method for key, _ in made],
        _array(key.request_id for key, _ in made),
        [key.body_hash for key, _ in made],
        _array(resource_id for _, resource_id in made),
    )


def _claim_columns(turns: Iterable[TripTurn]) -> Sequence[Any]:
    gone: list[tuple[Any, ...]] = []
    moved: list[tuple[Any, ...]] = []
    new: list[tuple[Any, ...]] = []
    for turn in turns:
        trip_id = turn.trip.trip_id
        for seat_number, legs, old, now_is in turn.seats.claim_writes():
            # Else a seat with the number NULL would be none.
            quoted = f'"{seat_number}"'
            if now_is is None and old is not None:
                gone.append((trip_id, quoted, legs, old.owner_id))
            elif now_is is not None and old is not None:
                moved.append((trip_id, quoted, legs, old.owner_id, now_is.state, now_is.owner_id))
            elif now_is is not None:
                new.append((trip_id, quoted, legs, now_is.state, now_is.owner_id))
    return [
        _array(row[column] for row in rows)
        for rows, width in ((gone, 4), (moved, 6), (new, 5))
        for column in range(width)
    ]


def _array(values: Iterable[Any]) -> str:
    return "{" + ",".join(map(str, values)) + "}"
