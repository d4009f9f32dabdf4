"""One simulated driver: starts the trip, sends its positions when they are due, and ends it."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from services.stack.replay.record import RunRecord
from services.stack.replay.schedule import PlannedPosition
from wayfare.location.v1 import trip_pb2
from wayfare_client import (
    DriverListener,
    DriverSession,
    Pacing,
    UnacknowledgedError,
    WayfareClient,
    make_position,
)

_ACKNOWLEDGED_SECONDS = 15.0


async def drive(
    client: WayfareClient,
    *,
    vehicle_id: str,
    trip_id: str,
    plan: Sequence[PlannedPosition],
    record: RunRecord,
    gap_seconds_min: float,
) -> None:
    """Drive one trip from STARTED to ENDED; the record holds what became of its positions."""
    listener = DriverListener(on_rejected=record.note_refused)
    try:
        async with client.drive(
            vehicle_id, trip_id, pacing=Pacing.KEEP, listener=listener
        ) as session:
            await session.send_status(trip_pb2.TRIP_STATUS_STARTED, capture_time=_now())
            await _send_positions(session, plan, record, gap_seconds_min=gap_seconds_min)
            await session.send_status(trip_pb2.TRIP_STATUS_ENDED, capture_time=_now())
    except UnacknowledgedError as error:
        record.undecided_count = error.pending_count


async def _send_positions(
    session: DriverSession,
    plan: Sequence[PlannedPosition],
    record: RunRecord,
    *,
    gap_seconds_min: float,
) -> None:
    begin = last_sent = time.monotonic()
    last_due = 0.0
    for planned in plan:
        # Held up, positions keep their distance: a real phone does not send two at once either.
        earliest = last_sent + min(gap_seconds_min, planned.send_after_seconds - last_due)
        due = max(begin + planned.send_after_seconds, earliest)
        await asyncio.sleep(due - time.monotonic())
        last_sent, last_due = time.monotonic(), planned.send_after_seconds
        position = make_position(
            planned.point.latitude,
            planned.point.longitude,
            capture_time=planned.capture_time,
            heading_degrees=planned.point.heading_degrees,
        )
        record.note_sent(position, at=last_sent)
        record.note_seq(position, await session.send_position_message(position))
    # What is still undecided then is counted when the session is left.
    with suppress(TimeoutError):
        await session.wait_acknowledged(_ACKNOWLEDGED_SECONDS)


def _now() -> datetime:
    return datetime.now(UTC)
