"""A driver in the contract suite of LiveStore: a session on a tracked trip."""

from collections.abc import Sequence

from services.location.domain.trips import TrackedTrip
from services.location.ports.live import LiveStore, SessionGrant, Tick
from tests.support.location_values import (
    TENANT,
    a_trip,
    boarding_update,
    now_milliseconds,
    position_update,
    status_update,
)


async def opened(
    live: LiveStore, driver_id: str, *, trip_id: str = "", resume_seq: int | None = None
) -> SessionGrant:
    return await live.open_session(
        driver_id=driver_id,
        tenant_id=TENANT,
        vehicle_id="bus-14",
        trip_id=trip_id,
        resume_seq=resume_seq,
    )


class Drive:
    """A driver with an open session, on a trip that is tracked."""

    def __init__(self, live: LiveStore, trip: TrackedTrip, session: str) -> None:
        self.live, self.trip, self.session = live, trip, session
        self.bucket = live.bucket_of(trip.driver_id)
        self.start = now_milliseconds()

    @classmethod
    async def begun(cls, live: LiveStore) -> "Drive":
        trip = a_trip()
        await live.track(trip)
        grant = await opened(live, trip.driver_id, trip_id=trip.trip_id)
        return cls(live, trip, grant.session)

    async def position(self, seq: int, *, after_seconds: float | None = None) -> str:
        seconds = seq if after_seconds is None else after_seconds
        update = position_update(
            self.trip.driver_id,
            seq=seq,
            capture=self.start + int(seconds * 1000),
            session=self.session,
            trip_id=self.trip.trip_id,
        )
        return await self.live.apply(self.bucket, [update])

    async def status(self, seq: int, status: str) -> str:
        update = status_update(
            self.trip.driver_id,
            seq=seq,
            status=status,
            session=self.session,
            trip_id=self.trip.trip_id,
        )
        return await self.live.apply(self.bucket, [update])

    async def boarding(self, seq: int, count: int) -> str:
        update = boarding_update(
            self.trip.driver_id,
            seq=seq,
            boarded_count=count,
            session=self.session,
            trip_id=self.trip.trip_id,
        )
        return await self.live.apply(self.bucket, [update])


def names_of(ticks: Sequence[Tick]) -> list[str]:
    return [name[:1].decode() for tick in ticks for name in tick.fields[::2]]
