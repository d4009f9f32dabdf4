"""What somebody with all rights could do to the books behind the service's back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from tests.support.stack_fixtures import TestDatabase


@asynccontextmanager
async def tampering(database: TestDatabase) -> AsyncIterator["asyncpg.Connection[Any]"]:
    """Connect as the superuser for whom no trigger fires."""
    connection = await asyncpg.connect(database.admin_dsn)
    try:
        await connection.execute("SET session_replication_role = replica")
        yield connection
    finally:
        await connection.close()
