"""Notices when more of a tenant's messages are refused than should be, and alerts its staff."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence

from services.location.ports.live import Update
from services.location.ports.views import ViewStore
from services.shared.errors import DependencyUnavailableError

WINDOW_SECONDS = 60.0
LEAST_DECIDED = 100
HIGH_SHARE = 0.2
_QUIET_SECONDS = 300


class ErrorRates:
    """Counts what was accepted and refused, per tenant, in windows of a minute."""

    def __init__(self, *, views: ViewStore, alert: Callable[[int, int], bytes]) -> None:
        """Keep alerts in `views`; `alert` encodes one from how many were refused, and of how many.

        An alert is said at most every five minutes per tenant, whichever process sees it.
        """
        self._views = views
        self._alert = alert
        self._accepted: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()

    def accepted(self, updates: Sequence[Update]) -> None:
        """Count what the store accepted."""
        counts = self._accepted
        for update in updates:
            counts[update.publisher.tenant_id] += 1

    def refused(self, tenant_id: str) -> None:
        """Count a refused message of a driver."""
        self._refused[tenant_id] += 1

    async def run(self) -> None:
        """Look at each window until cancelled."""
        while True:
            await asyncio.sleep(WINDOW_SECONDS)
            await self.look()

    async def look(self) -> None:
        """End a window, and alert where too much of it was refused."""
        accepted, self._accepted = self._accepted, Counter()
        refused, self._refused = self._refused, Counter()
        for tenant_id, count in refused.items():
            decided = count + accepted[tenant_id]
            if decided < LEAST_DECIDED or count < HIGH_SHARE * decided:
                continue
            try:
                await self._say(tenant_id, self._alert(count, decided))
            except DependencyUnavailableError:
                # Live state is away: that is told by other means, and more often.
                return

    async def _say(self, tenant_id: str, payload: bytes) -> None:
        digest = "error-rate"
        if await self._views.first_to_say(tenant_id, digest=digest, seconds=_QUIET_SECONDS):
            token = hashlib.sha256(payload).hexdigest()[:32]
            await self._views.raise_alert(tenant_id, digest=token, payload=payload)
