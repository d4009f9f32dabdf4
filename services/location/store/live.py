"""Keeps live state in Valkey, by the functions of functions.lua. Implements ports.LiveStore."""

import secrets
from collections.abc import Sequence
from typing import Any

from services.location.domain.trips import TrackedTrip
from services.location.ports.live import (
    TICKS_READ_MOST,
    DriverState,
    Publisher,
    SessionGrant,
    Tick,
    TripState,
    Update,
    WatchState,
)
from services.location.store import keys
from services.location.store.functions import ValkeyFunctions, valkey_answers
from services.location.store.trip_records import read_record, write_record
from services.shared.clock import Clock
from services.shared.errors import RequestIdReusedError
from services.shared.valkey import Valkey

_DAY_SECONDS = 24 * 3600
_FOLLOW_SECONDS = 600
READ_BLOCK_MILLISECONDS = 1_000


class ValkeyLiveStore:
    """Keeps live state in one Valkey server or a cluster of them."""

    def __init__(
        self,
        client: Valkey,
        *,
        reader: Valkey,
        bucket_count: int,
        live_seconds: int,
        updates_kept: int,
        clock: Clock,
    ) -> None:
        """Write by `client`; wait for ticks by `reader`, whose time limit is longer than a wait."""
        self.client = client
        self._reader = reader
        self._reader.set_response_callback("XREAD", _as_it_came)
        self._bucket_count = bucket_count
        self._live_milliseconds = live_seconds * 1000
        self._updates_kept = updates_kept
        self._clock = clock
        self._functions = ValkeyFunctions(client)

    async def ping(self) -> None:
        """Ask for an answer. The first one loads the functions."""
        await self._functions.load_once()
        async with valkey_answers():
            await self.client.ping()

    def bucket_of(self, driver_id: str) -> int:
        """Return the driver's bucket."""
        return keys.bucket_of(driver_id, self._bucket_count)

    async def open_session(
        self,
        *,
        driver_id: str,
        tenant_id: str,
        vehicle_id: str,
        trip_id: str,
        resume_seq: int | None,
        vehicle_class: int = 0,
    ) -> SessionGrant:
        """Begin a session that fences off older ones of the same driver."""
        resume = "" if resume_seq is None else str(resume_seq)
        answer = await self._call(
            "loc_open_session",
            self.bucket_of(driver_id),
            (
                driver_id,
                vehicle_id,
                trip_id,
                tenant_id,
                resume,
                _new_epoch(),
                vehicle_class or "",
            ),
        )
        await self._point_vehicle(tenant_id, vehicle_id, driver_id)
        return _grant_of(answer)

    async def join_session(
        self,
        *,
        driver_id: str,
        tenant_id: str,
        vehicle_id: str,
        trip_id: str,
        vehicle_class: int = 0,
    ) -> SessionGrant:
        """Return what is known of a driver who reports without a stream; fences nobody off."""
        answer = await self._call(
            "loc_join_session",
            self.bucket_of(driver_id),
            (driver_id, vehicle_id, trip_id, tenant_id, _new_epoch(), vehicle_class or ""),
        )
        await self._point_vehicle(tenant_id, vehicle_id, driver_id)
        return _grant_of(answer)

    async def apply(self, bucket: int, updates: Sequence[Update]) -> str:
        """Decide and write `updates` in one atomic step; return a verdict for each."""
        arguments: list[str | int | bytes] = [self._updates_kept]
        for update in updates:
            fix = update.fix
            detail, payload = update.status, update.payload
            if update.alert_payload:
                detail = f"{detail} {len(update.alert_payload)}"
                payload = update.alert_payload + payload
            elif fix is not None and not update.trip_id:
                detail = f"{fix.longitude} {fix.latitude}"
            arguments += (
                update.publisher.driver_id,
                update.session,
                update.seq,
                0 if fix is None else fix.capture_milliseconds,
                update.kind,
                update.trip_id,
                detail,
                payload,
            )
        verdicts: bytes = await self._call("loc_apply", bucket, arguments)
        return verdicts.decode()

    async def track(self, trip: TrackedTrip) -> None:
        """Make the trip known: its live state, who drives it, who may follow it."""
        before = await self.tracked_trip(trip.trip_id)
        bucket = self.bucket_of(trip.driver_id)
        moves = before is not None and self.bucket_of(before.driver_id) != bucket
        told: Sequence[bytes] = (b"",) * 5
        if before is not None and moves:
            state = await self._snapshot(before, with_events=False)
            told = (*state[2:5], *state[9:11])
        await self._call("loc_track", bucket, (trip.trip_id, _new_epoch(), trip.driver_id, *told))
        await write_record(self.client, trip)
        if before is not None and moves:
            # Last: followers who come again find the new driver.
            await self._call("loc_move_away", self.bucket_of(before.driver_id), (trip.trip_id,))

    async def untrack(self, trip: TrackedTrip) -> None:
        """Mark the trip as over and end its followers' streams."""
        await self.track(trip)
        await self._call("loc_untrack", self.bucket_of(trip.driver_id), (trip.trip_id,))

    async def board(self, trip: TrackedTrip, payload: bytes) -> None:
        """Tell a trip's followers how many are on board, unless they know."""
        await self._call("loc_board", self.bucket_of(trip.driver_id), (trip.trip_id, payload))

    async def tracked_trip(self, trip_id: str) -> TrackedTrip | None:
        """Return the trip, without its stops and followers, or None when it is not known here."""
        return await read_record(self.client, trip_id)

    async def is_follower(self, trip_id: str, user_id: str) -> bool:
        """Say whether the user is among the trip's followers or conductors."""
        async with valkey_answers():
            return bool(await self.client.sismember(keys.followers_key(trip_id), user_id))

    async def snapshot(self, trip: TrackedTrip, *, with_events: bool) -> TripState:
        """Return the live state of the trip, read in one atomic step."""
        state = await self._snapshot(trip, with_events=with_events)
        return TripState(
            epoch=state[0].decode() or "00000000",
            version=int(state[1] or 0),
            status=state[2].decode(),
            boarding_payload=state[4],
            tracked=state[5] != b"0",
            position_payload=state[6],
            events=state[7],
            eta_payload=state[8],
        )

    async def _snapshot(self, trip: TrackedTrip, *, with_events: bool) -> Any:
        return await self._call(
            "loc_snapshot",
            self.bucket_of(trip.driver_id),
            (trip.trip_id, trip.driver_id, "1" if with_events else "0", self._live_milliseconds),
        )

    async def vehicle_state(self, tenant_id: str, vehicle_id: str) -> DriverState | None:
        """Return the newest that is known of a vehicle's driver, or None."""
        async with valkey_answers():
            driver_id = await self.client.get(keys.vehicle_key(tenant_id, vehicle_id))
        if driver_id is None:
            return None
        capture, received, vehicle, trip, tenant, live = await self._call(
            "loc_driver_state",
            self.bucket_of(driver_id.decode()),
            (driver_id, self._live_milliseconds),
        )
        if vehicle.decode() != vehicle_id or tenant.decode() != tenant_id:
            return None
        return DriverState(
            vehicle_id=vehicle_id,
            trip_id=trip.decode(),
            tenant_id=tenant_id,
            capture_milliseconds=int(capture or 0),
            received_milliseconds=int(received or 0),
            position_payload=live,
        )

    async def watch(
        self,
        publisher: Publisher,
        trip_id: str,
        *,
        known: WatchState,
        state: bytes,
        told: Sequence[tuple[str, bytes]],
    ) -> WatchState | None:
        """Keep what is known of a trip's stops, or without a trip of a driver's geofences."""
        arguments: list[str | int | bytes] = [trip_id, publisher.driver_id, known.version, state]
        for kind, payload in told:
            arguments += (kind, payload)
        newer = await self._call("loc_watch", self.bucket_of(publisher.driver_id), arguments)
        return WatchState(version=int(newer[0]), state=newer[1]) if newer else None

    async def watched(self, publisher: Publisher, trip_id: str) -> WatchState:
        """Return what `watch` kept."""
        version, state = await self._call(
            "loc_watched", self.bucket_of(publisher.driver_id), (trip_id, publisher.driver_id)
        )
        return WatchState(version=int(version), state=state)

    async def set_presence(
        self,
        *,
        driver_id: str,
        tenant_id: str,
        vehicle_id: str,
        online: bool,
        vehicle_class: int = 0,
    ) -> None:
        """Set whether the driver is online; offline forgets the live position too."""
        await self._call(
            "loc_set_presence",
            self.bucket_of(driver_id),
            (driver_id, "1" if online else "0", tenant_id, vehicle_id, vehicle_class or ""),
        )
        if online:
            await self._point_vehicle(tenant_id, vehicle_id, driver_id)

    async def follow(self, user_id: str, trip_id: str, *, trips_max: int) -> bool:
        """Count one more followed trip of a user; say False when it is one too many.

        Lasts 600 seconds.
        """
        now = self._now()
        key = keys.follows_key(user_id)
        until = now + _FOLLOW_SECONDS * 1000
        answer = await self._functions.call("loc_follow", key, (trip_id, now, until, trips_max))
        return bool(answer)

    async def unfollow(self, user_id: str, trip_id: str) -> None:
        """Count the trip no more."""
        async with valkey_answers():
            await self.client.zrem(keys.follows_key(user_id), trip_id)

    async def replay_answer(self, request_id: str, body_hash: bytes) -> bytes | None:
        """Return the answer that a request got before, or None. Raises RequestIdReusedError."""
        async with valkey_answers():
            kept: bytes | None = await self.client.get(keys.request_key(request_id))
        if kept is None:
            return None
        if kept[: len(body_hash)] != body_hash:
            # Keys are of one user: "<user id>:<request id>".
            raise RequestIdReusedError(request_id.rpartition(":")[2])
        return kept[len(body_hash) :]

    async def keep_answer(self, request_id: str, body_hash: bytes, answer: bytes) -> None:
        """Keep the answer of a request for a day."""
        async with valkey_answers():
            await self.client.set(
                keys.request_key(request_id), body_hash + answer, ex=_DAY_SECONDS, nx=True
            )

    async def last_tick_id(self, bucket: int) -> bytes:
        """Return the id of the bucket's last tick, 0-0 when there was none."""
        async with valkey_answers():
            newest = await self.client.xrevrange(keys.updates_key(bucket), count=1)
        return newest[0][0] if newest else b"0-0"

    async def first_tick_id(self, bucket: int) -> bytes:
        """Return the id of the oldest tick that is kept, 0-0 when there is none."""
        async with valkey_answers():
            oldest = await self.client.xrange(keys.updates_key(bucket), count=1)
        return oldest[0][0] if oldest else b"0-0"

    async def read_ticks(self, bucket: int, after: bytes) -> Sequence[Tick]:
        """Wait at most a second for ticks after `after` and return them.

        Empty when there were none.
        """
        async with valkey_answers():
            answer = await self._reader.xread(
                {keys.updates_key(bucket): after},
                count=TICKS_READ_MOST,
                block=READ_BLOCK_MILLISECONDS,
            )
        if not answer:
            return ()
        # A map with RESP3, pairs with RESP2; one stream either way.
        entries = next(iter(answer.values())) if isinstance(answer, dict) else answer[0][1]
        return [Tick(stream_id=entry[0], fields=entry[1]) for entry in entries]

    async def _point_vehicle(self, tenant_id: str, vehicle_id: str, driver_id: str) -> None:
        async with valkey_answers():
            await self.client.set(
                keys.vehicle_key(tenant_id, vehicle_id), driver_id, ex=_DAY_SECONDS
            )

    async def _call(
        self, function: str, bucket: int, arguments: Sequence[str | int | bytes]
    ) -> Any:
        return await self._functions.call(function, keys.updates_key(bucket), arguments)

    def _now(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


def _grant_of(answer: Sequence[bytes]) -> SessionGrant:
    session, seq, capture, live, status = answer
    return SessionGrant(
        session=session.decode(),
        seq=int(seq),
        capture_milliseconds=int(capture),
        live_payload=live,
        trip_status=status.decode(),
    )


def _as_it_came(answer: Any, **_options: Any) -> Any:
    # redis-py would make a dict of each entry and lose all but one update of a trip.
    return answer


def _new_epoch() -> str:
    return secrets.token_hex(4)
