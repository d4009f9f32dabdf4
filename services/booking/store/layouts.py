"""Keeps seat layouts. Implements ports.trips.LayoutStore."""

from datetime import datetime
from typing import Any

from pydantic import TypeAdapter

from services.booking.domain.layouts import Deck, SeatClass, SeatLayout
from services.booking.ports.requests import WriteRequest
from services.booking.store import requests
from services.shared.clock import Clock
from services.shared.postgres import Database, Session

_CLASSES = TypeAdapter(tuple[SeatClass, ...])
_DECKS = TypeAdapter(tuple[Deck, ...])
_LAYOUTS_KEPT = 1_000

_COLUMNS = """seat_layout_id, display_name, vehicle_class, seat_classes::text AS seat_classes,
  decks::text AS decks, create_time"""
_INSERT = """
INSERT INTO booking.seat_layouts (seat_layout_id, tenant_id, display_name, vehicle_class,
  seat_classes, decks, seat_count, create_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""
_FIND = f"SELECT {_COLUMNS} FROM booking.seat_layouts WHERE seat_layout_id = $1"  # noqa: S608 - constants of ours
_NEWEST = f"""
SELECT {_COLUMNS} FROM booking.seat_layouts
WHERE tenant_id = $1 AND ($2::timestamptz IS NULL OR (create_time, seat_layout_id) < ($2, $3::uuid))
ORDER BY create_time DESC, seat_layout_id DESC LIMIT $4
"""  # noqa: S608 - constants of ours


class PostgresLayoutStore:
    """Keeps seat layouts; those asked for lately are remembered, since they never change."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Take the database of role wayfare_booking."""
        self._database = database
        self._clock = clock
        self._known: dict[tuple[str, str], SeatLayout] = {}

    async def create(self, layout: SeatLayout, request: WriteRequest) -> SeatLayout:
        """Keep a layout; return it, or what the request made before."""
        session = Session(tenant_id=request.tenant_id, role="SERVICE")
        async with self._database.transaction(session) as connection:
            made = await requests.claim(
                connection, request, layout.seat_layout_id, self._clock.now()
            )
            if made is None:
                await connection.execute(
                    _INSERT,
                    layout.seat_layout_id,
                    request.tenant_id,
                    layout.display_name,
                    layout.vehicle_class,
                    _CLASSES.dump_json(layout.seat_classes).decode(),
                    _DECKS.dump_json(layout.decks).decode(),
                    layout.seat_count,
                    layout.create_time,
                )
                return layout
            return _layout_of(await connection.fetchrow(_FIND, made))

    async def find(self, tenant_id: str, seat_layout_id: str) -> SeatLayout | None:
        """Return a layout of the tenant, or None."""
        key = (tenant_id, seat_layout_id)
        if key in self._known:
            return self._known[key]
        session = Session(tenant_id=tenant_id, role="SERVICE")
        async with self._database.transaction(session) as connection:
            row = await connection.fetchrow(_FIND, seat_layout_id)
        if row is None:
            return None
        if len(self._known) >= _LAYOUTS_KEPT:
            self._known.pop(next(iter(self._known)))
        layout = self._known[key] = _layout_of(row)
        return layout

    async def newest(
        self, tenant_id: str, *, before: tuple[datetime, str] | None, most: int
    ) -> list[SeatLayout]:
        """Return layouts, newest first."""
        session = Session(tenant_id=tenant_id, role="SERVICE")
        async with self._database.transaction(session) as connection:
            rows = await connection.fetch(_NEWEST, tenant_id, *(before or (None, None)), most)
        return [_layout_of(row) for row in rows]


def _layout_of(row: Any) -> SeatLayout:
    return SeatLayout(
        seat_layout_id=str(row["seat_layout_id"]),
        display_name=row["display_name"],
        vehicle_class=row["vehicle_class"],
        seat_classes=_CLASSES.validate_json(row["seat_classes"]),
        decks=_DECKS.validate_json(row["decks"]),
        create_time=row["create_time"],
    )
