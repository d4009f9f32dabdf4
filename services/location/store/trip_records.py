"""Keeps the records of tracked trips in Valkey: who drives, who may follow. A part of live.py."""

from datetime import UTC, date, datetime

from services.location.domain.trips import TrackedTrip
from services.location.store import keys
from services.location.store.functions import valkey_answers
from services.shared.valkey import Valkey

_FIELDS = [
    "tenant",
    "driver",
    "vehicle",
    "expected",
    "stopped",
    "timetable",
    "date",
    "capacity",
]
_TRIP_SECONDS = 48 * 3600
_ENDED_TRIP_SECONDS = 3600


async def write_record(client: Valkey, trip: TrackedTrip) -> None:
    """Write who drives and follows the trip, in place of what was there."""
    async with valkey_answers():
        key, followers = keys.trip_key(trip.trip_id), keys.followers_key(trip.trip_id)
        lasts = _ENDED_TRIP_SECONDS if trip.stopped else _TRIP_SECONDS
        members = trip.follower_ids | trip.conductor_ids
        # Not emptied and filled again: whoever asks in between may follow all the same.
        before = await client.smembers(followers)
        gone = [one for one in before if one.decode() not in members]
        pipeline = client.pipeline(transaction=False)
        if gone:
            pipeline.srem(followers, *gone)
        if members:
            pipeline.sadd(followers, *members)
            pipeline.expire(followers, lasts)
        record = {
            "tenant": trip.tenant_id,
            "driver": trip.driver_id,
            "vehicle": trip.vehicle_id,
            "expected": trip.expected_count,
            "stopped": int(trip.stop_time.timestamp()) if trip.stop_time else 0,
            "timetable": trip.timetable_trip_id,
            "date": trip.service_date.isoformat() if trip.service_date else "",
            "capacity": trip.capacity_count,
        }
        # The record last: who finds it finds the followers too.
        pipeline.hset(key, mapping=record)
        pipeline.expire(key, lasts)
        await pipeline.execute()


async def read_record(client: Valkey, trip_id: str) -> TrackedTrip | None:
    """Return the trip, without its stops and followers, or None when it is not known here."""
    async with valkey_answers():
        record = await client.hmget(keys.trip_key(trip_id), _FIELDS)
    if record[0] is None:
        return None
    # Records of an older version lack the last fields.
    told = {name: (value or b"").decode() for name, value in zip(_FIELDS, record, strict=True)}
    stopped = int(told["stopped"])
    return TrackedTrip(
        trip_id=trip_id,
        tenant_id=told["tenant"],
        driver_id=told["driver"],
        vehicle_id=told["vehicle"],
        expected_count=int(told["expected"]),
        stop_time=datetime.fromtimestamp(stopped, UTC) if stopped else None,
        timetable_trip_id=told["timetable"],
        service_date=date.fromisoformat(told["date"]) if told["date"] else None,
        capacity_count=int(told["capacity"] or 0),
    )
