"""Mobile apps: a driver and a passenger on grpc-js, another implementation of gRPC."""

import json
from typing import Any

import pytest

from tests.support.e2e_edge import Edge
from tests.support.e2e_programs import NODE_FOLDER, Program, run_program, running_program

pytestmark = pytest.mark.e2e

SCRIPT = str(NODE_FOLDER / "client.js")


async def test_a_driver_and_a_follower_meet(edge: Edge) -> None:
    trip = await edge.track()
    address = edge.stack.edge_address
    async with running_program(
        "node", SCRIPT, "follow", address, trip.passenger_token, trip.trip_id
    ) as follower:
        await follower.until_printed('"snapshot"')
        async with running_program(
            "node", SCRIPT, "drive", address, trip.driver_token, trip.trip_id, trip.vehicle_id
        ) as driver:
            assert (await driver.end()).exit_code == 0
        assert (await follower.end()).exit_code == 0

    replies, updates = _documents(driver), _documents(follower)
    assert replies[0]["reply"] == "welcome"
    acks = [reply["ack"] for reply in replies if reply.get("reply") == "ack"]
    assert acks[-1]["seq"] == "5"
    assert not any(ack.get("rejected") for ack in acks)
    assert [update.get("update") for update in updates[:-1]] == [
        *("snapshot", "status", "position", "position", "position", "status")
    ]
    assert replies[-1]["end"] == updates[-1]["end"] == "OK"


async def test_it_is_told_why_it_was_refused(edge: Edge) -> None:
    trip, other = await edge.track(), await edge.track()
    refused = await run_program(
        *("node", SCRIPT, "follow", edge.stack.edge_address),
        *(other.passenger_token, trip.trip_id),
    )

    assert [document["end"] for document in refused.documents()] == ["PERMISSION_DENIED"]


def _documents(program: Program) -> list[dict[str, Any]]:
    return [json.loads(line) for line in program.output.splitlines()]
