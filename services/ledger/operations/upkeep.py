"""What the ledger does by itself: lets pending transfers expire, and folds gains into balances."""

import asyncio
from collections.abc import Sequence

import structlog

from services.ledger.domain.accounts import derived_id
from services.ledger.domain.transfers import Phase, WantedTransfer
from services.ledger.operations.posting import Poster
from services.ledger.ports import LedgerRefusedError, LedgerStore
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailableError, OverloadedError

_log = structlog.get_logger()
_EXPIRE_MOST = 500
_EXPIRE_HASH = b"expired by clock"


class Upkeep:
    """Works beside the calls; several processes may do so at once."""

    def __init__(
        self,
        *,
        store: LedgerStore,
        poster: Poster,
        clock: Clock,
        expire_seconds: float,
        fold_seconds: float,
    ) -> None:
        """Look for what expired, and for gains, so often."""
        self._store = store
        self._poster = poster
        self._clock = clock
        self._expire_seconds = expire_seconds
        self._fold_seconds = fold_seconds

    async def expire_forever(self) -> None:
        """Let pending transfers expire until cancelled."""
        while True:
            try:
                expired = await self.expire()
            except (DependencyUnavailableError, OverloadedError) as error:
                _log.warning("nothing_expired", error=error.reason)
                expired = 0
            if expired < _EXPIRE_MOST:
                await asyncio.sleep(self._expire_seconds)

    async def expire(self) -> int:
        """Let those expire whose time is over; return how many were found.

        Of two processes that find the same one, the second repeats what the first did.
        """
        found = await self._store.expired(now=self._clock.now(), most=_EXPIRE_MOST)
        by_tenant: dict[str, list[WantedTransfer]] = {}
        for tenant_id, pending_id in found:
            wanted = WantedTransfer(
                transfer_id=derived_id("EXPIRE", tenant_id, pending_id),
                phase=Phase.EXPIRE,
                kind="",
                currency_code="",
                postings=(),
                body_hash=_EXPIRE_HASH,
                pending_id=pending_id,
            )
            by_tenant.setdefault(tenant_id, []).append(wanted)
        for tenant_id, wanted_here in by_tenant.items():
            await self._post(tenant_id, wanted_here)
        return len(found)

    async def _post(self, tenant_id: str, wanted: Sequence[WantedTransfer]) -> None:
        """Post all or, if PostgreSQL refuses that, each by itself.

        It refuses one that somebody changed behind the ledger's back, which must not end the
        process, nor keep the others from expiring.
        """
        try:
            await self._poster.post(tenant_id, wanted)
        except LedgerRefusedError as error:
            if len(wanted) > 1:
                for one in wanted:
                    await self._post(tenant_id, [one])
                return
            _log.error("pending_does_not_expire", transfer_id=wanted[0].pending_id, exc_info=error)

    async def fold_forever(self) -> None:
        """Fold gains until cancelled."""
        while True:
            await asyncio.sleep(self._fold_seconds)
            try:
                await self._store.fold()
            except DependencyUnavailableError as error:
                _log.warning("nothing_folded", error=error.reason)
