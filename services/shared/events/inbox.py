"""Knows what a consumer has taken, so that what comes twice takes effect once.

What can come twice: events whose relay died between Valkey and its commit, and, when Valkey lost
something, those that occurred within `REPUBLISHED_SECONDS`. Entries are kept well beyond that.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from services.shared.events.streams import REPUBLISHED_SECONDS

if TYPE_CHECKING:
    from services.shared.postgres import Connection

KEPT_SECONDS = 3 * REPUBLISHED_SECONDS
"""How long an entry is kept: the third part would do if all clocks agreed."""
PRUNED_MOST = 20_000


class Inbox:
    """Is the table `<schema>.event_inbox`, for one consumer."""

    def __init__(self, schema: str, consumer: str) -> None:
        """Work on `schema`, which is ours and not a caller's text."""
        self._consumer = consumer
        self._claim = f"""
            INSERT INTO {schema}.event_inbox (consumer, event_id)
            SELECT $1, id FROM unnest($2::uuid[]) AS id ON CONFLICT DO NOTHING RETURNING event_id
        """  # noqa: S608 - the schema is ours
        self._prune = f"""
            DELETE FROM {schema}.event_inbox WHERE ctid = ANY (ARRAY(
              SELECT ctid FROM {schema}.event_inbox
              WHERE create_time < now() - $1 * interval '1 second'
              ORDER BY create_time LIMIT $2))
        """  # noqa: S608 - the schema is ours

    async def claim(self, connection: "Connection", event_ids: Sequence[str]) -> set[str]:
        """Remember these events; return those that were not taken before."""
        rows = await connection.fetch(self._claim, self._consumer, event_ids)
        return {str(row[0]) for row in rows}

    async def prune(self, connection: "Connection", *, kept_seconds: float = KEPT_SECONDS) -> int:
        """Delete the oldest entries, of every consumer of the schema; return how many.

        At most PRUNED_MOST at once, so that no transaction is long.
        """
        done: str = await connection.execute(self._prune, kept_seconds, PRUNED_MOST)
        return int(done.rpartition(" ")[2])
