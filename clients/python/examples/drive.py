"""Sign up a driver, let an administrator approve them, drive, and look where the vehicle is."""
# ruff: noqa: INP001 - a script, not a package

import asyncio
import secrets
import sys

from wayfare.identity.v1.identity_service_pb2 import ApproveDriverRequest
from wayfare.location.v1.location_service_pb2 import GetVehiclePositionRequest
from wayfare.policy.v1.policy_pb2 import ROLE_DRIVER
from wayfare_client import WayfareClient

TENANT = "0198c000-0000-7000-8000-000000000001"


async def main(edge: str, admin_password: str) -> None:
    """Drive bus-14 for one position."""
    phone = f"+44151496{1000 + secrets.randbelow(9000)}"
    async with (
        WayfareClient(edge, tenant_id=TENANT) as admin,
        WayfareClient(edge, tenant_id=TENANT) as driver,
    ):
        await admin.log_in("+441514960001", admin_password)
        session = await driver.sign_up(phone, "ten letters", display_name="Dana", role=ROLE_DRIVER)
        await admin.identity.ApproveDriver(ApproveDriverRequest(user_id=session.user.user_id))
        await driver.refresh()  # the new token says that Dana may drive
        async with driver.drive("bus-14") as bus:
            await bus.send_position(53.4084, -2.9916, speed_meters_per_second=8.3)
            # Leaving waits until the server has decided everything.
        request = GetVehiclePositionRequest(vehicle_id="bus-14")
        sys.stdout.write(str(await admin.location.GetVehiclePosition(request)))


asyncio.run(main(*sys.argv[1:]))
