"""Seats through Envoy: the map as JSON, held as JSON and by gRPC, watched while that happens."""

import asyncio
import uuid
from typing import Any

import httpx
import pytest

from tests.support.booking_process import layout, trip
from tests.support.booking_seats import BLOCKED, FREE, HELD, Watching
from tests.support.e2e_edge import Edge, bearer
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import trip_pb2
from wayfare.booking.v1.booking_service_pb2_grpc import BookingServiceStub

pytestmark = pytest.mark.e2e


def _id() -> str:
    return str(uuid.uuid4())


async def _trip(stub: BookingServiceStub, admin: Any) -> trip_pb2.Trip:
    made = await stub.CreateSeatLayout(
        pb.CreateSeatLayoutRequest(seat_layout=layout(blocked=["9D"]), request_id=_id()),
        metadata=admin,
    )
    created: trip_pb2.Trip = await stub.CreateTrip(
        pb.CreateTripRequest(trip=trip(made.seat_layout_id), request_id=_id()), metadata=admin
    )
    return created


async def test_seats_are_shown_held_watched_and_changed_by_hand_through_the_edge(
    edge: Edge,
) -> None:
    admin, passenger = edge.mint.token("ADMIN"), edge.mint.token("PASSENGER", sub=_id())
    async with (
        edge.channel() as channel,
        httpx.AsyncClient(base_url=edge.url, trust_env=False) as web,
    ):
        web.headers["authorization"] = f"Bearer {passenger}"
        stub = BookingServiceStub(channel)
        made = await _trip(stub, bearer(admin))
        watcher = Watching(
            stub.WatchSeats(
                pb.WatchSeatsRequest(trip_id=made.trip_id, from_stop_id="A", to_stop_id="B"),
                metadata=bearer(passenger),
            )
        )
        watching = asyncio.create_task(watcher.run())
        await watcher.sees(lambda one: len(one.snapshots) == 1)

        journey = {"fromStopId": "A", "toStopId": "C"}
        best = {"seatCount": 2, "togetherRequired": True}
        held = await web.post(
            f"/v1/trips/{made.trip_id}/holds",
            json={**journey, "bestAvailable": best, "requestId": _id()},
        )
        await watcher.sees(lambda one: one.states["2A"] == one.states["2B"] == HELD)
        shown = await web.get(f"/v1/trips/{made.trip_id}/seats", params={"includeLegStates": True})
        taken = await web.post(
            f"/v1/trips/{made.trip_id}/holds",
            json={**journey, "seats": {"seatNumbers": ["2A"]}, "requestId": _id()},
        )
        hold_id = held.json()["holdId"]
        extended = await web.post(f"/v1/holds/{hold_id}:extend", json={"requestId": _id()})
        listed = await web.get("/v1/holds")
        released = await web.post(f"/v1/holds/{hold_id}:release", json={"requestId": _id()})
        await watcher.sees(lambda one: one.states["2A"] == FREE)
        web.headers["authorization"] = f"Bearer {admin}"
        blocked = await web.post(
            f"/v1/trips/{made.trip_id}/seats/2A:override",
            json={
                "action": "SEAT_OVERRIDE_ACTION_BLOCK",
                "reason": "The belt is broken",
                "requestId": _id(),
            },
        )
        await watcher.sees(lambda one: one.states["2A"] == BLOCKED)
        audit = await web.get("/v1/seatOverrides", params={"tripId": made.trip_id})
        watcher.cancel()
        await watching

    assert held.json()["together"] is True
    assert held.json()["amount"] == {"currencyCode": "EGP", "units": "40", "nanos": 0}
    states = {one["seatNumber"]: one for one in shown.json()["seats"]}
    assert states["2A"]["legStates"] == ["SEAT_STATE_HELD", "SEAT_STATE_HELD", "SEAT_STATE_FREE"]
    assert states["9D"]["state"] == "SEAT_STATE_BLOCKED"
    assert taken.status_code == 400
    assert "SEAT_HELD" in taken.text
    assert extended.json()["extensionLeftCount"] == 0
    assert [one["holdId"] for one in listed.json()["holds"]] == [hold_id]
    assert released.json()["state"] == "HOLD_STATE_RELEASED"
    assert [one["overrideId"] for one in audit.json()["seatOverrides"]] == [
        blocked.json()["overrideId"]
    ]
