"""The keys that sign a tenant's tickets: made at first use, rotated, published."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.booking.domain.issuing import Signer
from services.booking.domain.tickets import PublishedKey, key_id_of, public_key_of
from services.booking.ports.requests import WriteRequest
from services.booking.ports.tickets import KeptKey, KeySeal, ListedKey, TicketKeyStore
from services.shared.clock import Clock
from services.shared.gathering import Gathering
from services.shared.ids import IdSource

SIGN_AFTER_DEFAULT = timedelta(hours=1)
# A process may sign with what it knew so long ago; a new key starts after that, so that no key
# signs when its time is over.
KNOWN_FOR = timedelta(seconds=2)
_SIGN_AFTER_MIN = timedelta(seconds=5)
_TENANTS_KEPT = 1_000
_OPENED_KEPT = 4_000
PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 200


@dataclass(frozen=True, slots=True)
class _Known:
    read_time: float
    keys: Sequence[KeptKey]


class TicketKeys:
    """Knows the keys of tenants. `new_key` makes one from the randomness of the system."""

    def __init__(
        self,
        *,
        store: TicketKeyStore,
        seal: KeySeal,
        clock: Clock,
        ids: IdSource,
        new_key: Callable[[], Ed25519PrivateKey] = Ed25519PrivateKey.generate,
    ) -> None:
        """Take where keys are kept, and what they are sealed with."""
        self._store = store
        self._seal = seal
        self._clock = clock
        self._ids = ids
        self._new_key = new_key
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._opened: OrderedDict[tuple[str, str], Ed25519PrivateKey] = OrderedDict()
        self._reads = Gathering[str, Sequence[KeptKey]](self._read)

    async def signer(self, tenant_id: str) -> Signer:
        """Return the key that signs now; the first one of a tenant is made here.

        Use it at once: it is good for the moment that it names.
        """
        keys = await self._keys(tenant_id)
        now = _whole_second(self._clock.now())
        signing = _signing_at(keys, now)
        if signing is None:
            await self._store.begin(tenant_id, self._made(tenant_id, now))
            keys = await self._keys(tenant_id, anew=True)
            signing = _signing_at(keys, now) or keys[-1]
            now = max(now, signing.published.sign_start_time)
        return Signer(
            key_id=signing.published.key_id,
            private_key=self._open(tenant_id, signing),
            issue_time=now,
        )

    async def published(self, tenant_id: str, key_ids: set[str]) -> dict[str, PublishedKey]:
        """Return the tenant's public keys by id; `key_ids` are those that are looked for."""
        keys = await self._keys(tenant_id)
        if not key_ids <= {key.published.key_id for key in keys}:
            keys = await self._keys(tenant_id, anew=True)
        return {key.published.key_id: key.published for key in keys}

    async def rotate(self, request: WriteRequest, *, sign_after: timedelta) -> PublishedKey:
        """Make a key that signs after a while; at least five seconds, so that all know of it."""
        if not await self._keys(request.tenant_id):
            await self.signer(request.tenant_id)
        start = self._clock.now() + max(sign_after, _SIGN_AFTER_MIN)
        # Whole seconds, as tickets have them.
        start_second = _whole_second(start + timedelta(seconds=1, microseconds=-1))
        key = self._made(request.tenant_id, start_second)
        kept = await self._store.rotate(key, request)
        self._known.pop(request.tenant_id, None)
        return kept.published

    async def page(
        self, tenant_id: str, *, before: tuple[datetime, str] | None, page_size: int
    ) -> tuple[list[ListedKey], bool]:
        """Return a page of keys, newest first, and whether there are more."""
        size = min(page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)
        if not await self._keys(tenant_id):
            # Phones shall know the key before the first ticket.
            await self.signer(tenant_id)
        listed = await self._store.listed(tenant_id, before=before, most=size + 1)
        return listed[:size], len(listed) > size

    async def _keys(self, tenant_id: str, *, anew: bool = False) -> Sequence[KeptKey]:
        known = self._known.get(tenant_id)
        if known is not None and not anew:
            age = self._clock.monotonic() - known.read_time
            if age < KNOWN_FOR.total_seconds():
                return known.keys
        return await self._reads.ask(tenant_id)

    async def _read(self, tenant_ids: Sequence[str]) -> Sequence[Sequence[KeptKey]]:
        """Read for all who ask at once; what is read is as old as the question."""
        read_time = self._clock.monotonic()
        wanted = list(dict.fromkeys(tenant_ids))
        found = dict(zip(wanted, await asyncio.gather(*map(self._store.keys, wanted)), strict=True))
        for tenant_id, keys in found.items():
            if keys:
                self._known[tenant_id] = _Known(read_time, keys)
        while len(self._known) > _TENANTS_KEPT:
            self._known.popitem(last=False)
        return [found[tenant_id] for tenant_id in tenant_ids]

    def _made(self, tenant_id: str, sign_start_time: datetime) -> KeptKey:
        private_key = self._new_key()
        public_key = public_key_of(private_key)
        return KeptKey(
            published=PublishedKey(
                key_id=key_id_of(public_key),
                public_key=public_key,
                sign_start_time=sign_start_time,
            ),
            sealed_private_key=self._seal.seal(private_key, tenant_id=tenant_id),
            resource_id=self._ids.new_id(),
        )

    def _open(self, tenant_id: str, key: KeptKey) -> Ed25519PrivateKey:
        name = (tenant_id, key.published.key_id)
        opened = self._opened.get(name)
        if opened is None:
            opened = self._seal.open(
                key.sealed_private_key,
                tenant_id=tenant_id,
                public_key=key.published.public_key,
            )
            self._opened[name] = opened
            if len(self._opened) > _OPENED_KEPT:
                self._opened.popitem(last=False)
        return opened


def _signing_at(keys: Sequence[KeptKey], moment: datetime) -> KeptKey | None:
    return next((key for key in keys if key.published.signs_at(moment)), None)


def _whole_second(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)
