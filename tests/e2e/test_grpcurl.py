"""People at a terminal: grpcurl, which knows nothing but what server reflection tells."""

import json
from typing import Any

import pytest

from services.stack.environments import DEMO_TENANT_ID
from tests.support.e2e_edge import Edge, now
from tests.support.e2e_people import register
from tests.support.e2e_programs import (
    GRPCURL,
    Result,
    documents_in,
    headers_of,
    run_program,
    running_program,
)

pytestmark = pytest.mark.e2e

LOCATION = "wayfare.location.v1.LocationService"
IDENTITY = "wayfare.identity.v1.IdentityService"


async def grpcurl(edge: Edge, *words: str) -> Result:
    """Run grpcurl at the edge; options come before the words."""
    return await run_program(
        GRPCURL, "-plaintext", *words[:-1], edge.stack.edge_address, *words[-1:]
    )


async def test_it_lists_every_service(edge: Edge) -> None:
    listed = await grpcurl(edge, "list")

    assert {LOCATION, IDENTITY, "grpc.health.v1.Health"} <= set(listed.output.split())


async def test_it_describes_methods_and_messages(edge: Edge) -> None:
    address = edge.stack.edge_address
    service = await run_program(GRPCURL, "-plaintext", address, "describe", LOCATION)
    message = await run_program(
        GRPCURL, "-plaintext", address, "describe", "wayfare.location.v1.DriverHello"
    )

    assert "rpc StreamDriver ( stream .wayfare.location.v1.DriverMessage )" in service.output
    assert "optional int64 resume_seq = 3" in message.output


async def test_it_logs_in_sends_positions_and_follows(edge: Edge) -> None:
    driver = await register(edge, "DRIVER")
    body = {
        "tenant_id": DEMO_TENANT_ID,
        "phone": driver.person.phone,
        "password": driver.person.password,
    }
    logged_in = await grpcurl(edge, "-d", json.dumps(body), f"{IDENTITY}/LogIn")
    token = str(logged_in.documents()[0]["accessToken"])
    trip = await edge.track_for(driver.user_id)

    following = (*headers_of(trip.passenger_token), "-d", json.dumps({"trip_id": trip.trip_id}))
    async with (
        running_program(*_command(edge, *following, method="FollowTrip")) as follower,
        running_program(
            *_command(edge, *headers_of(token), "-d", "@", method="StreamDriver"), has_input=True
        ) as vehicle,
    ):
        await follower.until_printed('"snapshot"')
        await vehicle.say({"hello": {"vehicle_id": trip.vehicle_id, "trip_id": trip.trip_id}})
        await vehicle.until_printed('"welcome"')
        await vehicle.say(_status(1, "STARTED"), _position(2, 53.4084), _position(3, 91.0))
        await vehicle.until_printed("REQUEST_INVALID")
        await vehicle.say(_status(4, "ENDED"), {"goodbye": {}})

        assert (await vehicle.end()).exit_code == 0
        assert (await follower.end()).exit_code == 0

    replies, updates = (documents_in(program.output.decode()) for program in (vehicle, follower))
    assert replies[-1]["ack"]["seq"] == "4"
    assert [update["status"]["status"] for update in updates if "status" in update] == [
        "TRIP_STATUS_STARTED",
        "TRIP_STATUS_ENDED",
    ]
    positions = [update["position"] for update in updates if "position" in update]
    assert [position["location"]["latitude"] for position in positions] == [53.4084]


async def test_it_is_told_why_it_was_refused(edge: Edge) -> None:
    refused = await grpcurl(edge, f"{IDENTITY}/GetMe")

    assert refused.exit_code != 0
    assert "Code: Unauthenticated" in refused.errors
    assert '"reason": "CREDENTIALS_MISSING"' in refused.errors


def _command(edge: Edge, *words: str, method: str) -> tuple[str, ...]:
    return (
        str(GRPCURL),
        "-plaintext",
        *words,
        edge.stack.edge_address,
        f"{LOCATION}/{method}",
    )


def _status(seq: int, status: str) -> dict[str, Any]:
    return {
        "seq": seq,
        "status": {"status": f"TRIP_STATUS_{status}", "capture_time": now().isoformat()},
    }


def _position(seq: int, latitude: float) -> dict[str, Any]:
    location = {"latitude": latitude, "longitude": -2.9916}
    return {"seq": seq, "position": {"location": location, "capture_time": now().isoformat()}}
