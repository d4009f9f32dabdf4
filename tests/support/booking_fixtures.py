"""Fixtures of tests that run BookingService in their own process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.booking_process import BookingProcess, running_booking
from tests.support.location_tokens import TokenMint
from tests.support.stack_fixtures import TestDatabase


@pytest.fixture
async def booking(
    migrated_database: TestDatabase, valkey_url: str, short_folder: Path
) -> AsyncIterator[BookingProcess]:
    dsn = migrated_database.dsn_for("booking")
    async with running_booking(
        short_folder, dsn=dsn, valkey_url=valkey_url, mint=TokenMint()
    ) as process:
        yield process
