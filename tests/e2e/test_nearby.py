"""Who looks for a ride, through Envoy: the same free driver by gRPC, JSON and gRPC-Web."""

import json
import uuid

import httpx
import pytest

from tests.support.e2e_edge import Edge
from tests.support.e2e_programs import BUF, headers_of, run_program
from wayfare.location.v1 import location_service_pb2
from wayfare.location.v1.location_service_pb2_grpc import LocationServiceStub

pytestmark = pytest.mark.e2e

# Far from where other tests drive.
LATITUDE, LONGITUDE = 12.5, 45.0
LIST_NEARBY = "wayfare.location.v1.LocationService/ListNearbyDrivers"


async def test_a_free_driver_is_near_by_grpc_json_and_grpc_web(edge: Edge) -> None:
    passenger = edge.mint.token("PASSENGER", sub=str(uuid.uuid4()))
    driver = edge.mint.token("DRIVER", sub=str(uuid.uuid4()))
    place = {"location": {"latitude": LATITUDE, "longitude": LONGITUDE}, "radius_meters": 500}
    query = {
        "location.latitude": LATITUDE,
        "location.longitude": LONGITUDE,
        "radiusMeters": 500,
    }
    request = location_service_pb2.ListNearbyDriversRequest(radius_meters=500)
    request.location.latitude, request.location.longitude = LATITUDE, LONGITUDE
    async with edge.client(driver) as client, client.drive("car-near") as car:
        await car.send_position(LATITUDE + 0.001, LONGITUDE)
        await car.wait_acknowledged(10)
        async with edge.channel() as channel:
            by_grpc = await LocationServiceStub(channel).ListNearbyDrivers(
                request, metadata=(("authorization", f"Bearer {passenger}"),)
            )
        async with httpx.AsyncClient(trust_env=False) as web:
            by_json = await web.get(
                f"{edge.url}/v1/drivers:nearby",
                params=query,
                headers={"authorization": f"Bearer {passenger}"},
            )
        by_web = await run_program(
            *(str(BUF), "curl", "--protocol", "grpcweb", "--schema", "gen/descriptors.binpb"),
            *headers_of(passenger, "--header"),
            *("--data", json.dumps(place), f"{edge.url}/{LIST_NEARBY}"),
        )

    (found,) = by_grpc.drivers
    # A thousandth of a degree of latitude.
    assert found.distance_meters == pytest.approx(111, abs=1)
    for answer in (by_json.json(), by_web.documents()[0]):
        (shown,) = answer["drivers"]
        assert shown["distanceMeters"] == pytest.approx(found.distance_meters)
        assert shown["position"]["location"]["latitude"] == pytest.approx(LATITUDE + 0.001)
