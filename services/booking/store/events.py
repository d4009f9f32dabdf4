"""Keeps events with the changes that they tell of."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from services.booking.ports.trips import NewEvent

if TYPE_CHECKING:
    from services.shared.postgres import Connection

KEEP = """
INSERT INTO booking.events (aggregate_type, aggregate_id, aggregate_version, tenant_id, envelope)
SELECT aggregate_type, aggregate_id, aggregate_version, $1, envelope
FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bytea[])
  AS new (aggregate_type, aggregate_id, aggregate_version, envelope)
"""
"""Keeps events; its parameters are the tenant and `columns`."""


async def keep(connection: "Connection", tenant_id: str, events: Sequence[NewEvent]) -> None:
    """Keep events of one tenant in the open transaction."""
    await connection.execute(KEEP, tenant_id, *columns(events))


def columns(events: Sequence[NewEvent]) -> tuple[Sequence[str | int | bytes], ...]:
    """Return events as KEEP takes them."""
    return (
        [one.aggregate_type for one in events],
        [one.aggregate_id for one in events],
        [one.aggregate_version for one in events],
        [one.envelope for one in events],
    )
