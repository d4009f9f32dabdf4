"""How many positions the servers themselves say that they conflated: replaced unsent by newer ones.

The contract allows that for followers who read more slowly than positions come. The demo asks, so
that what a busy machine skipped is told from what was lost.
"""

import asyncio
from collections.abc import Sequence

import httpx

from services.stack.errors import StackError

_METRIC = "wayfare_location_conflated_total"


async def conflated_total(metrics_urls: Sequence[str]) -> int:
    """Return the sum of the counters of some processes since they started."""
    async with httpx.AsyncClient(timeout=5.0, trust_env=False) as client:
        counts = await asyncio.gather(*(_count(client, url) for url in metrics_urls))
    return sum(counts)


async def _count(client: httpx.AsyncClient, url: str) -> int:
    try:
        response = await client.get(url)
        response.raise_for_status()
    except httpx.HTTPError as error:
        raise StackError(f"The metrics at {url} cannot be read: {error}") from error
    lines = (line.split() for line in response.text.splitlines())
    return sum(int(float(line[-1])) for line in lines if line and line[0] == _METRIC)
