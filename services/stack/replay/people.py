"""The simulated drivers and passengers of a replay: signed up, and the drivers approved."""

import asyncio

from services.stack.environments import DEMO_ADMIN_PHONE, DEMO_TENANT_ID
from services.stack.replay.access import StackAccess
from services.stack.replay.accounts import AccountsAtEdge, EdgeRefusalError, make_person
from wayfare.identity.v1 import session_pb2

# Each sign-up hashes a password, which takes a core for a while: more at once would only queue.
_SIGN_UPS_AT_ONCE = 4
_PHONES_TRIED_MAX = 10


class People:
    """Makes accounts with the demo operator, each person with a loopback address of its own."""

    def __init__(self, access: StackAccess) -> None:
        """Name the stack."""
        self._accounts = AccountsAtEdge(access.edge_address, tenant_id=DEMO_TENANT_ID)
        self._password = access.admin_password
        self._at_once = asyncio.Semaphore(_SIGN_UPS_AT_ONCE)
        self._admin: session_pb2.Session | None = None
        self._count = 0

    async def drivers(self, count: int) -> list[session_pb2.Session]:
        """Sign up drivers and approve them; their tokens say so."""
        self._admin = await self._accounts.log_in(DEMO_ADMIN_PHONE, self._password)
        return await self._together("DRIVER", count)

    async def passengers(self, count: int) -> list[session_pb2.Session]:
        """Sign up passengers."""
        return await self._together("PASSENGER", count)

    async def _together(self, role: str, count: int) -> list[session_pb2.Session]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._one(role)) for _ in range(count)]
        return [task.result() for task in tasks]

    async def _one(self, role: str) -> session_pb2.Session:
        self._count += 1
        number = self._count
        async with self._at_once:
            for attempt in range(1, _PHONES_TRIED_MAX + 1):
                person = make_person(number)
                name = f"Simulated {role.lower()} {number}"
                try:
                    session = await self._accounts.sign_up(person, role=role, display_name=name)
                except EdgeRefusalError as error:
                    if error.reason != "PHONE_TAKEN" or attempt == _PHONES_TRIED_MAX:
                        raise
                    continue
                if role != "DRIVER" or self._admin is None:
                    return session
                await self._accounts.approve_driver(self._admin, session.user.user_id)
                return await self._accounts.refresh(session, ip_address=person.ip_address)
        raise AssertionError("the loop returns or raises")
