"""Fixtures of tests that run LedgerService in their own process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.ledger_deposits import SETTINGS, Teller
from tests.support.ledger_process import LedgerProcess, running_ledger
from tests.support.location_tokens import TokenMint
from tests.support.stack_fixtures import TestDatabase


@pytest.fixture
async def ledger(
    migrated_database: TestDatabase, valkey_url: str, short_folder: Path
) -> AsyncIterator[LedgerProcess]:
    dsn = migrated_database.dsn_for("ledger")
    async with running_ledger(
        short_folder, dsn=dsn, valkey_url=valkey_url, mint=TokenMint()
    ) as process:
        yield process


@pytest.fixture
async def teller(
    migrated_database: TestDatabase, valkey_url: str, short_folder: Path
) -> AsyncIterator[Teller]:
    dsn = migrated_database.dsn_for("ledger")
    async with running_ledger(
        short_folder, dsn=dsn, valkey_url=valkey_url, mint=TokenMint(), **SETTINGS
    ) as process:
        yield Teller(process, migrated_database)
