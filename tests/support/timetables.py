"""What tests of timetables share: writing a feed to PostgreSQL as the job does."""

from datetime import UTC, datetime
from pathlib import Path

from services.location.gtfs.writer import ImportResult, write_feed
from tests.support.gtfs_feeds import read

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


async def import_feed(dsn: str, path: Path, *, tenant_id: str) -> ImportResult:
    """Read a feed that is right, and write it for a tenant."""
    feed, findings = read(path)
    return await write_feed(
        dsn,
        feed,
        tenant_id=tenant_id,
        now=NOW,
        warning_count=findings.warning_count,
        progress=lambda _what, _rows: None,
    )
