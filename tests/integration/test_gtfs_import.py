"""The import job on a real PostgreSQL: whole or not at all, once per feed, tenants apart."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.support.gtfs_feeds import CAIRNS, GOOD_FEED, PROJECT, changed, write_zip
from tests.support.location_values import OTHER_TENANT, TENANT
from tests.support.stack_fixtures import TestDatabase
from tests.support.timetables import import_feed

pytestmark = pytest.mark.integration

TABLES = ("feeds", "routes", "stops", "services", "shapes", "patterns", "trips")


def job(database: TestDatabase, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run the job as the command does; return its exit code and its last answers by key."""
    done = subprocess.run(
        [sys.executable, "-m", "services.location.gtfs", *arguments],
        cwd=PROJECT,
        env={**os.environ, "WAYFARE_DATABASE_URL": database.dsn_for("location")},
        capture_output=True,
        text=True,
        check=False,
    )
    answers: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        answers |= json.loads(line)
    return done.returncode, answers


async def counts(dsn: str, tenant_id: str = "") -> dict[str, int]:
    """Count the rows of every table that a role sees for a tenant."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("SELECT set_config('app.tenant_id', $1, false)", tenant_id)
        return {
            table: await connection.fetchval(f"SELECT count(*) FROM location.timetable_{table}")
            for table in TABLES
        }
    finally:
        await connection.close()


async def test_cairns_is_imported_once_however_often(migrated_database: TestDatabase) -> None:
    first_code, first = job(migrated_database, "import", str(CAIRNS), "--tenant", TENANT)
    again_code, again = job(migrated_database, "import", str(CAIRNS), "--tenant", TENANT)

    assert (first_code, again_code) == (0, 0)
    assert (first["summary"]["is_new"], again["summary"]["is_new"]) == (True, False)
    assert first["summary"]["feed_id"] == again["summary"]["feed_id"]
    assert first["progress"]["rows"]
    kept = await counts(migrated_database.admin_dsn)
    assert kept.pop("patterns") < 600
    assert kept == {
        "feeds": 1,
        "routes": 22,
        "stops": 416,
        "services": 4,
        "shapes": 54,
        "trips": 1339,
    }


async def test_a_broken_feed_leaves_the_old_one(
    migrated_database: TestDatabase, tmp_path: Path
) -> None:
    good = write_zip(tmp_path / "good.zip", GOOD_FEED)
    broken = write_zip(tmp_path / "broken.zip", changed("trips.txt", 2, "R9,WEEK,T1,X,0,W1"))
    _, first = job(migrated_database, "import", str(good), "--tenant", TENANT)

    code, answers = job(migrated_database, "import", str(broken), "--tenant", TENANT)
    _, shown = job(migrated_database, "show", "--tenant", TENANT, "--date", "2026-06-05")

    assert code == 1
    assert answers["broken"]["fault_count"] == 1
    assert answers["broken"]["faults"][0]["line"] == 2
    assert shown["overview"]["feed"]["feed_id"] == first["summary"]["feed_id"]
    assert shown["overview"]["routes"] == [
        {
            "route_id": "R14",
            "short_name": "14",
            "long_name": "City - Croxteth",
            "trips": 2,
            "trips_on_day": 2,
        }
    ]


async def test_a_dry_run_writes_nothing_and_needs_no_database(
    migrated_database: TestDatabase, tmp_path: Path
) -> None:
    good = write_zip(tmp_path / "good.zip", GOOD_FEED)

    code, answers = job(migrated_database, "import", str(good), "--tenant", TENANT, "--dry-run")

    assert code == 0
    assert answers["summary"]["trip_count"] == 2
    assert (await counts(migrated_database.admin_dsn))["feeds"] == 0


async def test_tenants_see_their_own_timetable_only(
    migrated_database: TestDatabase, tmp_path: Path
) -> None:
    dsn = migrated_database.dsn_for("location")
    good = write_zip(tmp_path / "good.zip", GOOD_FEED)
    await import_feed(dsn, good, tenant_id=TENANT)
    await import_feed(dsn, CAIRNS, tenant_id=OTHER_TENANT)

    assert (await counts(dsn, TENANT))["trips"] == 2
    assert (await counts(dsn, OTHER_TENANT))["trips"] == 1339
    assert set((await counts(dsn)).values()) == {0}
    # Not even the owner of the tables sees a row: row-level security is forced.
    assert set((await counts(migrated_database.owner_dsn, TENANT)).values()) == {0}


async def test_a_tenant_can_neither_write_nor_delete_for_another(
    migrated_database: TestDatabase, tmp_path: Path
) -> None:
    dsn = migrated_database.dsn_for("location")
    good = write_zip(tmp_path / "good.zip", GOOD_FEED)
    result = await import_feed(dsn, good, tenant_id=TENANT)

    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("SELECT set_config('app.tenant_id', $1, false)", OTHER_TENANT)
        await connection.execute("DELETE FROM location.timetable_feeds")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(
                "INSERT INTO location.timetable_routes VALUES ($1::uuid, $2::uuid, 'X', '', '', 3)",
                result.feed_id,
                TENANT,
            )
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DELETE FROM location.timetable_trips")
    finally:
        await connection.close()

    assert (await counts(dsn, TENANT))["trips"] == 2


async def test_a_newer_feed_replaces_the_old_one_whole(
    migrated_database: TestDatabase, tmp_path: Path
) -> None:
    dsn = migrated_database.dsn_for("location")
    await import_feed(dsn, CAIRNS, tenant_id=TENANT)
    await import_feed(dsn, write_zip(tmp_path / "good.zip", GOOD_FEED), tenant_id=TENANT)

    assert await counts(migrated_database.admin_dsn) == {
        "feeds": 1,
        "routes": 1,
        "stops": 3,
        "services": 1,
        "shapes": 1,
        "patterns": 2,
        "trips": 2,
    }


async def test_imports_at_once_leave_one_whole_timetable(
    migrated_database: TestDatabase, tmp_path: Path
) -> None:
    dsn = migrated_database.dsn_for("location")
    feeds = [
        write_zip(
            tmp_path / f"feed{number}.zip",
            changed("stops.txt", 3, f"S2,Stop {number},53.415,-2.965,,"),
        )
        for number in range(3)
    ]

    results = await asyncio.gather(
        *(import_feed(dsn, path, tenant_id=TENANT) for path in [*feeds, *feeds])
    )

    assert any(result.is_new for result in results)
    kept = await counts(migrated_database.admin_dsn)
    assert (kept["feeds"], kept["stops"], kept["trips"]) == (1, 3, 2)


async def test_a_database_that_is_away_is_an_error_in_one_sentence(tmp_path: Path) -> None:
    good = write_zip(tmp_path / "good.zip", GOOD_FEED)
    done = subprocess.run(
        [sys.executable, "-m", "services.location.gtfs", "import", str(good), "--tenant", TENANT],
        cwd=PROJECT,
        env={**os.environ, "WAYFARE_DATABASE_URL": f"postgresql://x@/x?host={tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "database" in json.loads(done.stdout.splitlines()[-1])["error"]
    assert "Traceback" not in done.stderr
