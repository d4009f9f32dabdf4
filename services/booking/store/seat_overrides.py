"""Keeps what was changed by hand. Implements StorePart, and ports.seats.OverrideStore."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from services.booking.domain.overriding import OVERRIDES, Override, OverrideAction, SeatOverride
from services.booking.domain.turns import TripTurn, WantedChange
from services.shared.postgres import Database, Session

if TYPE_CHECKING:
    from services.shared.postgres import Connection

_COLUMNS = """override_id::text, trip_id::text, seat_number, from_stop_index, to_stop_index, action,
  target_seat_number, reason, user_id::text, hold_ids::text[], booking_ids::text[], body_hash,
  create_time"""
_FIND = f"SELECT {_COLUMNS} FROM booking.seat_overrides WHERE override_id = ANY ($1::uuid[])"  # noqa: S608 - constants of ours
_NEWEST = f"""
SELECT {_COLUMNS} FROM booking.seat_overrides
WHERE tenant_id = $1 AND ($2::uuid IS NULL OR trip_id = $2)
  AND ($3::timestamptz IS NULL OR (create_time, override_id) < ($3, $4::uuid))
ORDER BY create_time DESC, override_id DESC LIMIT $5
"""  # noqa: S608 - constants of ours
_INSERT = """
INSERT INTO booking.seat_overrides (tenant_id, override_id, trip_id, seat_number, from_stop_index,
  to_stop_index, action, target_seat_number, reason, user_id, hold_ids, booking_ids, body_hash,
  create_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
"""


class SeatOverridePart:
    """Reads and writes overrides in the transaction that changes the seats."""

    name = OVERRIDES

    async def load(
        self,
        connection: "Connection",
        tenant_id: str,  # noqa: ARG002 - row-level security knows the tenant
        wanted: Sequence[tuple[WantedChange, TripTurn]],
    ) -> dict[str, SeatOverride]:
        """Return those of the wanted overrides that were made before."""
        ids = [one.override_id for one, _ in wanted if isinstance(one, Override)]
        if not ids:
            return {}
        rows = await connection.fetch(_FIND, ids)
        return {row["override_id"]: _override_of(row) for row in rows}

    async def write(
        self,
        connection: "Connection",
        tenant_id: str,
        rows: Sequence[SeatOverride],
        now: datetime,
    ) -> None:
        """Write overrides: an ADMIN makes a few a day."""
        for one in rows:
            await connection.execute(
                _INSERT,
                tenant_id,
                one.override_id,
                one.trip_id,
                one.seat_number,
                one.from_stop_index,
                one.to_stop_index,
                one.action,
                one.target_seat_number,
                one.reason,
                one.user_id,
                list(one.hold_ids),
                list(one.booking_ids),
                one.body_hash,
                now,
            )


class PostgresOverrideStore:
    """Lists what was changed by hand."""

    def __init__(self, database: Database) -> None:
        """Take the database of role wayfare_booking."""
        self._database = database

    async def newest(
        self, tenant_id: str, *, trip_id: str, before: tuple[datetime, str] | None, most: int
    ) -> list[SeatOverride]:
        """Return overrides, newest first; `trip_id` may be empty."""
        session = Session(tenant_id=tenant_id, role="SERVICE")
        async with self._database.transaction(session) as connection:
            rows = await connection.fetch(
                _NEWEST, tenant_id, trip_id or None, *(before or (None, None)), most
            )
        return [_override_of(row) for row in rows]


def _override_of(row: Any) -> SeatOverride:
    return SeatOverride(
        override_id=row["override_id"],
        trip_id=row["trip_id"],
        seat_number=row["seat_number"],
        from_stop_index=row["from_stop_index"],
        to_stop_index=row["to_stop_index"],
        action=OverrideAction(row["action"]),
        target_seat_number=row["target_seat_number"],
        reason=row["reason"],
        user_id=row["user_id"],
        hold_ids=tuple(row["hold_ids"]),
        booking_ids=tuple(row["booking_ids"]),
        body_hash=row["body_hash"],
        create_time=row["create_time"],
    )
