"""Is the RPC side of the GTFS-Realtime feeds."""

from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

from google.api import httpbody_pb2

from services.location.operations.feeds import FeedKind, Feeds
from services.location.tenants import tenant_asked_for

_CONTENT_TYPE = "application/x-protobuf"
# Envoy makes a 304 of an answer that carries this; gRPC has no such status.
NOT_MODIFIED = "x-wayfare-not-modified"


class FeedCalls:
    """Serves the three feeds."""

    def __init__(self, feeds: Feeds) -> None:
        """Answer with `feeds`."""
        self._feeds = feeds

    async def get(self, tenant_id: str, kind: FeedKind, context: Any) -> httpbody_pb2.HttpBody:
        """Return the newest feed; without a body when the caller has it already."""
        feed = await self._feeds.newest(tenant_asked_for(tenant_id), kind)
        modified = datetime.fromtimestamp(feed.stamp, UTC)
        headers = [
            ("last-modified", format_datetime(modified, usegmt=True)),
            ("cache-control", "private, no-cache"),
        ]
        if _has_it(context, feed.stamp):
            await context.send_initial_metadata((*headers, (NOT_MODIFIED, "1")))
            return httpbody_pb2.HttpBody(content_type=_CONTENT_TYPE)
        await context.send_initial_metadata(tuple(headers))
        return httpbody_pb2.HttpBody(content_type=_CONTENT_TYPE, data=feed.body)


def _has_it(context: Any, stamp: int) -> bool:
    """Say whether what the caller has is as new. A date that is none is ignored (RFC 9110)."""
    metadata = dict(context.invocation_metadata() or ())
    text = metadata.get("if-modified-since", "")
    if not isinstance(text, str) or not text:
        return False
    try:
        since = parsedate_to_datetime(text)
    except ValueError:
        return False
    if since.tzinfo is None:
        since = since.replace(tzinfo=UTC)
    return stamp <= int(since.timestamp())
