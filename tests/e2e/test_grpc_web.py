"""Browsers: gRPC-Web, with `buf curl` as the client and the checkout's protos as its schema."""

import json

import pytest

from services.stack.environments import DEMO_TENANT_ID
from tests.support.e2e_edge import Edge
from tests.support.e2e_people import register
from tests.support.e2e_programs import BUF, documents_in, headers_of, run_program, running_program
from tests.support.e2e_streams import bare_driver, hello_for, position_message, status_message
from wayfare.location.v1 import trip_pb2

pytestmark = pytest.mark.e2e

SCHEMA = "gen/descriptors.binpb"
LOG_IN = "wayfare.identity.v1.IdentityService/LogIn"
GET_ME = "wayfare.identity.v1.IdentityService/GetMe"
FOLLOW_TRIP = "wayfare.location.v1.LocationService/FollowTrip"


def buf_curl(edge: Edge, method: str, *words: str, schema: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command that calls a method over gRPC-Web."""
    return (
        *(str(BUF), "curl", "--protocol", "grpcweb", *schema, *words),
        f"{edge.url}/{method}",
    )


async def test_it_logs_in_with_the_schema_of_the_checkout(edge: Edge) -> None:
    account = await register(edge, "PASSENGER")
    body = {
        "tenant_id": DEMO_TENANT_ID,
        "phone": account.person.phone,
        "password": account.person.password,
    }
    schema = ("--schema", SCHEMA)
    logged_in = await run_program(
        *buf_curl(edge, LOG_IN, "--data", json.dumps(body), schema=schema)
    )
    token = str(logged_in.documents()[0]["accessToken"])
    me = await run_program(
        *buf_curl(edge, GET_ME, *headers_of(token, "--header"), "--data", "{}", schema=schema)
    )

    assert me.documents()[0]["phone"] == account.person.phone


async def test_it_follows_a_trip_to_its_end(edge: Edge) -> None:
    trip = await edge.track()
    command = buf_curl(
        edge,
        FOLLOW_TRIP,
        *headers_of(trip.passenger_token, "--header"),
        "--data",
        json.dumps({"trip_id": trip.trip_id}),
        schema=("--schema", SCHEMA),
    )
    async with (
        running_program(*command) as follower,
        bare_driver(edge, trip.driver_token) as driver,
    ):
        await follower.until_printed('"snapshot"')
        await driver.write(hello_for(trip))
        await driver.write(position_message(1))
        await driver.write(status_message(2, trip_pb2.TRIP_STATUS_ENDED))
        assert (await follower.end()).exit_code == 0

    updates = documents_in(follower.output.decode())
    kinds = [next(name for name in update if name != "resumeToken") for update in updates]
    assert kinds == ["snapshot", "position", "status"]


async def test_it_is_told_why_it_was_refused(edge: Edge) -> None:
    refused = await run_program(
        *buf_curl(edge, GET_ME, "--data", "{}", schema=("--schema", SCHEMA))
    )
    document = json.loads(refused.errors)

    assert document["code"] == "unauthenticated"
    assert [detail["type"] for detail in document["details"]] == ["google.rpc.ErrorInfo"]
