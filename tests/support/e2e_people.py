"""People with real accounts, each calling from a loopback address of its own. Used by tests/e2e."""

import secrets
from dataclasses import dataclass

from services.stack.environments import DEMO_ADMIN_PHONE, DEMO_TENANT_ID
from services.stack.replay.accounts import AccountsAtEdge, Person, make_person
from tests.support.e2e_edge import Edge
from wayfare.identity.v1 import session_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A person who signed up, and the session that this gave."""

    person: Person
    session: session_pb2.Session

    @property
    def user_id(self) -> str:
        """Return the account's id."""
        return self.session.user.user_id


def own_address() -> str:
    """Make up a loopback address that nobody else calls from."""
    parts = (1 + secrets.randbelow(254) for _ in range(2))
    return "127.9." + ".".join(str(part) for part in parts)


async def register(edge: Edge, role: str, *, approved: bool = True) -> Account:
    """Sign somebody up; a driver is approved too, and the session knows it."""
    accounts = AccountsAtEdge(edge.stack.edge_address, tenant_id=DEMO_TENANT_ID)
    made_up = make_person(0)
    person = Person(phone=made_up.phone, password=made_up.password, ip_address=own_address())
    session = await accounts.sign_up(person, role=role, display_name=f"End-to-end {role.lower()}")
    if role == "DRIVER" and approved:
        admin = session_pb2.Session(access_token=edge.mint.token("ADMIN"))
        await accounts.approve_driver(admin, session.user.user_id)
        session = await accounts.refresh(session, ip_address=person.ip_address)
    return Account(person=person, session=session)


async def log_in_administrator(edge: Edge) -> session_pb2.Session:
    """Log the demo tenant's administrator in."""
    accounts = AccountsAtEdge(edge.stack.edge_address, tenant_id=DEMO_TENANT_ID)
    return await accounts.log_in(
        DEMO_ADMIN_PHONE, edge.stack.admin_password, ip_address=own_address()
    )
