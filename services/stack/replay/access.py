"""What a tool needs to know of a stack to act in it as operator, driver and passenger."""

from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from services.stack.embedded import EmbeddedStack
from services.stack.environments import admin_password
from services.stack.home import Home

# Tools stand in for the service that owns trips until it runs here.
_ACTING_SERVICE = "booking"


@dataclass(frozen=True, slots=True, kw_only=True)
class StackAccess:
    """Where a stack is reached, and the secrets of its demo operator."""

    edge_address: str
    mesh_address: str
    certificates: Path
    admin_password: str
    location_instances: tuple[str, ...]

    def mesh_channel(self) -> grpc.aio.Channel:
        """Open a channel to the mesh with the certificate of the service that owns trips."""
        credentials = grpc.ssl_channel_credentials(
            root_certificates=(self.certificates / "ca.pem").read_bytes(),
            private_key=(self.certificates / f"{_ACTING_SERVICE}.key").read_bytes(),
            certificate_chain=(self.certificates / f"{_ACTING_SERVICE}.pem").read_bytes(),
        )
        options = [("grpc.enable_http_proxy", 0)]
        return grpc.aio.secure_channel(self.mesh_address, credentials, options=options)


def access_to_stack(stack: EmbeddedStack) -> StackAccess:
    """Return the access to a stack of this process."""
    return StackAccess(
        edge_address=stack.edge_address,
        mesh_address=stack.mesh_address,
        certificates=stack.certificates,
        admin_password=stack.admin_password,
        location_instances=_location_instances(list(stack.services)),
    )


def access_to_home(home: Home, *, edge_address: str = "") -> StackAccess:
    """Return the access to the stack that runs on a home; raise NotRunningError when none does."""
    state = home.read_state()
    return StackAccess(
        edge_address=edge_address or state.edge_address,
        mesh_address=state.mesh_address,
        certificates=home.certificates,
        admin_password=admin_password(home),
        location_instances=_location_instances([part.name for part in state.parts]),
    )


def _location_instances(names: list[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name.startswith("location-"))
