"""Keeps tickets. Implements ports.tickets.TicketStore.

`insert_from`, `revoke` and `hand_on_use` are for the transaction of whoever confirms, changes or
cancels a booking, who has locked the trip's row.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from services.booking.domain.issuing import IssuedTicket
from services.booking.domain.scanning import CountedScan, Ticket
from services.booking.ports.tickets import Position, Revocation
from services.shared.postgres import Database, Session

if TYPE_CHECKING:
    from services.shared.postgres import Connection

COLUMNS = """ticket_id, booking_id, booking_code, trip_id, passenger_id, user_id, seat_number,
  from_stop_index, to_stop_index, key_id, code, cash_due_minor, currency_code, issue_time, end_time,
  revoke_time, use_scan_id, use_device_id, use_stop_index, use_time"""
_FIND = f"SELECT {COLUMNS} FROM booking.tickets WHERE ticket_id = $1"  # noqa: S608 - constants of ours

_NEW = {
    "ticket_id": "uuid",
    "booking_id": "uuid",
    "booking_code": "text",
    "trip_id": "uuid",
    "passenger_id": "uuid",
    "user_id": "uuid",
    "seat_number": "text",
    "from_stop_index": "smallint",
    "to_stop_index": "smallint",
    "key_id": "text",
    "code": "bytea",
    "cash_due_minor": "bigint",
    "currency_code": "text",
    "issue_time": "timestamptz",
    "end_time": "timestamptz",
}

_REVOKE = """
WITH revoked AS (
  UPDATE booking.tickets SET revoke_time = $2
  WHERE ticket_id = ANY ($1::uuid[]) AND revoke_time IS NULL
  RETURNING ticket_id, tenant_id, trip_id, end_time
)
INSERT INTO booking.ticket_revocations (ticket_id, tenant_id, trip_id, end_time, revoke_time)
SELECT ticket_id, tenant_id, trip_id, end_time, $2 FROM revoked ORDER BY ticket_id
RETURNING ticket_id::text
"""

_HAND_ON_USE = """
UPDATE booking.tickets new SET use_scan_id = old.use_scan_id, use_device_id = old.use_device_id,
  use_stop_index = old.use_stop_index, use_time = old.use_time
FROM booking.tickets old
WHERE new.ticket_id = ANY ($2::uuid[]) AND old.ticket_id = ANY ($1::uuid[])
  AND old.passenger_id = new.passenger_id AND old.use_scan_id IS NOT NULL
"""

# Where every transaction before has ended; see the table.
_REVOCATIONS = """
SELECT ticket_id, trip_id, revoke_time, transaction_id::text::bigint AS transaction_id,
  revocation_number
FROM booking.ticket_revocations AS r
WHERE tenant_id = $1 AND (transaction_id, revocation_number) > ($2::text::xid8, $3)
  AND transaction_id < pg_snapshot_xmin(pg_current_snapshot())
  AND {}
ORDER BY r.transaction_id, r.revocation_number LIMIT $5
"""
_OF_TRIP = _REVOCATIONS.format("trip_id = $4::uuid")
_OF_ALL = _REVOCATIONS.format("end_time > $4::timestamptz")


def insert_from(rows: str, tenant_id: str) -> str:
    """Return the statement that keeps new tickets of a text; both are names of parameters."""
    columns = ", ".join(_NEW)
    return f"""
      INSERT INTO booking.tickets (tenant_id, {columns}) SELECT {tenant_id}, {columns}
      FROM json_to_recordset({rows}::json) AS n ({", ".join(f"{n} {k}" for n, k in _NEW.items())})
    """  # noqa: S608 - constants of ours


def rows_text(tickets: Sequence[IssuedTicket]) -> str:
    """Return tickets as the text that `insert_from` unfolds."""
    return json.dumps([_row_of(ticket) for ticket in tickets])


def _row_of(ticket: IssuedTicket) -> dict[str, object]:
    row = {name: getattr(ticket, name) for name in _NEW}
    return row | {
        "code": "\\x" + ticket.code.hex(),
        "issue_time": ticket.issue_time.isoformat(),
        "end_time": ticket.end_time.isoformat(),
    }


async def insert(connection: "Connection", tenant_id: str, tickets: Sequence[IssuedTicket]) -> None:
    """Keep new tickets by themselves in the open transaction."""
    await connection.execute(insert_from("$2", "$1"), tenant_id, rows_text(tickets))


async def revoke(
    connection: "Connection", ticket_ids: Sequence[str], *, now: datetime
) -> list[str]:
    """Revoke tickets in the open transaction; return those that were good before."""
    rows = await connection.fetch(_REVOKE, list(ticket_ids), now)
    return [row[0] for row in rows]


async def hand_on_use(
    connection: "Connection", old_ids: Sequence[str], tickets: Sequence[IssuedTicket]
) -> None:
    """Let new tickets be used as the passengers' old ones are: who is on board stays there."""
    new_ids = [ticket.ticket_id for ticket in tickets]
    await connection.execute(_HAND_ON_USE, list(old_ids), new_ids)


class PostgresTicketStore:
    """Reads tickets."""

    def __init__(self, database: Database) -> None:
        """Take the database of role wayfare_booking."""
        self._database = database

    async def find(self, tenant_id: str, ticket_id: str) -> Ticket | None:
        """Return a ticket of the tenant, or None."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            row = await connection.fetchrow(_FIND, ticket_id)
        return None if row is None else ticket_of(row)

    async def revocations(
        self, tenant_id: str, trip_id: str, *, after: Position, now: datetime, most: int
    ) -> list[Revocation]:
        """Return what was revoked after a place, oldest first."""
        async with self._database.transaction(_service(tenant_id)) as connection:
            rows = await connection.fetch(
                _OF_TRIP if trip_id else _OF_ALL,
                tenant_id,
                str(after.transaction_id),
                after.revocation_number,
                trip_id or now,
                most,
            )
        return [
            Revocation(
                ticket_id=str(row["ticket_id"]),
                trip_id=str(row["trip_id"]),
                revoke_time=row["revoke_time"],
                position=Position(row["transaction_id"], row["revocation_number"]),
            )
            for row in rows
        ]


def ticket_of(row: Any) -> Ticket:
    """Return the ticket of a row that has all of COLUMNS."""
    use = None
    if row["use_scan_id"] is not None:
        use = CountedScan(
            scan_id=str(row["use_scan_id"]),
            device_id=row["use_device_id"],
            stop_index=row["use_stop_index"],
            scan_time=row["use_time"],
        )
    return Ticket(
        issued=IssuedTicket(
            ticket_id=str(row["ticket_id"]),
            booking_id=str(row["booking_id"]),
            booking_code=row["booking_code"],
            trip_id=str(row["trip_id"]),
            passenger_id=str(row["passenger_id"]),
            user_id=str(row["user_id"]),
            seat_number=row["seat_number"],
            from_stop_index=row["from_stop_index"],
            to_stop_index=row["to_stop_index"],
            key_id=row["key_id"],
            code=row["code"],
            cash_due_minor=row["cash_due_minor"],
            currency_code=row["currency_code"],
            issue_time=row["issue_time"],
            end_time=row["end_time"],
        ),
        revoke_time=row["revoke_time"],
        use=use,
    )


def _service(tenant_id: str) -> Session:
    return Session(tenant_id=tenant_id, role="SERVICE")
