"""SQL of tenants."""

from typing import TYPE_CHECKING

from services.identity.domain import Tenant, TenantId

if TYPE_CHECKING:
    from services.shared.postgres import Connection


_FIND = "SELECT tenant_id, display_name, create_time FROM identity.tenants WHERE tenant_id = $1"

_ADD = """
INSERT INTO identity.tenants (tenant_id, display_name, create_time) VALUES ($1, $2, $3)
ON CONFLICT (tenant_id) DO NOTHING
RETURNING tenant_id
"""


class PostgresTenants:
    """The tenant of a transaction."""

    def __init__(self, connection: "Connection", tenant_id: TenantId) -> None:
        """Take the transaction's connection and tenant."""
        self._connection = connection
        self._tenant_id = tenant_id

    async def find(self) -> Tenant | None:
        """Return the tenant, or None."""
        row = await self._connection.fetchrow(_FIND, self._tenant_id)
        if row is None:
            return None
        return Tenant(
            tenant_id=TenantId(str(row["tenant_id"])),
            display_name=row["display_name"],
            create_time=row["create_time"],
        )

    async def add(self, tenant: Tenant) -> bool:
        """Add the tenant; return False when it exists."""
        added = await self._connection.fetchval(
            _ADD, tenant.tenant_id, tenant.display_name, tenant.create_time
        )
        return added is not None
