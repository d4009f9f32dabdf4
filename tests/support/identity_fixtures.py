"""The fixture of tests that call IdentityService; tests/conftest.py loads this file as a plugin."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from services.stack.valkey import ValkeyServer
    from tests.support.identity_process import IdentityProcess
    from tests.support.stack_fixtures import TestDatabase


@pytest.fixture
def identity_folder(short_folder: Path) -> Path:
    """Make a folder of a short path for one process."""
    folder = short_folder / f"identity-{uuid.uuid4().hex[:6]}"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
async def identity(
    module_database: "TestDatabase", valkey_server: "ValkeyServer", short_folder: Path
) -> AsyncIterator["IdentityProcess"]:
    """Run the service for the tests of one module."""
    # Imported here, so that tests that need no service load none.
    from tests.support.identity_process import running_identity, settings_for

    folder = short_folder / f"identity-{uuid.uuid4().hex[:6]}"
    folder.mkdir()
    dsn = module_database.dsn_for("identity")
    async with running_identity(
        settings_for(folder, dsn=dsn, valkey_url=valkey_server.url)
    ) as process:
        yield process
