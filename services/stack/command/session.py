"""`wayfare login` and `wayfare token`: call as a person from this terminal."""

import asyncio
from typing import Annotated

import typer

from services.stack.command.console import console
from services.stack.environments import DEMO_ADMIN_PHONE, DEMO_TENANT_ID, admin_password
from services.stack.errors import StackError
from services.stack.home import Home
from services.stack.session_file import SessionFile
from wayfare.policy.v1 import policy_pb2
from wayfare_client import WayfareClient

EdgeOption = Annotated[
    str, typer.Option(help="host:port of the edge; that of the running stack by default.")
]


def login(
    *,
    phone: Annotated[str, typer.Option(help="Phone number, for example +441514960001.")] = "",
    password: Annotated[str, typer.Option(help="Asked for when absent.", hide_input=True)] = "",
    admin: Annotated[
        bool, typer.Option("--admin", help="As the demo operator's administrator of this home.")
    ] = False,
    tenant: Annotated[str, typer.Option(help="Id of the operator.")] = DEMO_TENANT_ID,
    edge: EdgeOption = "",
) -> None:
    """Log in and keep the session in the home, for `wayfare token` and `wayfare follow`.

    Example: wayfare login --admin
    """
    home = Home()
    if admin:
        phone, password = DEMO_ADMIN_PHONE, admin_password(home)
    elif not phone:
        raise StackError("Say who logs in: --phone +44…, or --admin.")
    password = password or typer.prompt("Password", hide_input=True)
    asyncio.run(_log_in(home, edge_of(home, edge), tenant=tenant, phone=phone, password=password))


def token(edge: EdgeOption = "") -> None:
    """Print an access token of the session that `wayfare login` keeps, a fresh one when it is due.

    Example: curl -H "authorization: Bearer $(wayfare token)" http://127.0.0.1:8080/v1/me
    """
    home = Home()
    SessionFile(home).require()
    # Not through the console: nothing may be wrapped or coloured.
    typer.echo(asyncio.run(_fresh_token(home, edge_of(home, edge))))


def edge_of(home: Home, given: str) -> str:
    """Return the edge that was given, or that of the running stack."""
    return given or home.read_state().edge_address


async def _log_in(home: Home, edge: str, *, tenant: str, phone: str, password: str) -> None:
    home.create()
    async with WayfareClient(edge, tenant_id=tenant, store=SessionFile(home)) as client:
        session = await client.log_in(phone, password)
    role = policy_pb2.Role.Name(session.user.role).removeprefix("ROLE_")
    console.print(f"[green]✓[/] logged in as {session.user.display_name} ({role})")


async def _fresh_token(home: Home, edge: str) -> str:
    store = SessionFile(home)
    tenant_id = store.require().user.tenant_id
    async with WayfareClient(edge, tenant_id=tenant_id, store=store) as client:
        return await client.tokens.current()
