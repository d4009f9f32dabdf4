"""argon2id in a few threads of its own. Made by app.py; the operations see ports.PasswordHasher."""

import asyncio
import secrets
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import argon2

from services.shared.errors import OverloadedError

Answer = TypeVar("Answer")

_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Argon2Cost:
    """What one hash costs.

    The defaults are OWASP's least for argon2id: 19 MiB, 2 passes, 1 lane.
    """

    memory_kibibytes: int = 19_456
    passes: int = 2
    lanes: int = 1


class Argon2PasswordHasher:
    """Hashes and verifies passwords.

    The event loop never waits for it, and no more than a bound waits.
    """

    def __init__(self, cost: Argon2Cost, *, threads: int, waiting_max: int) -> None:
        """Start with no thread; at most `threads` run and `waiting_max` wait."""
        self._argon2 = argon2.PasswordHasher(
            memory_cost=cost.memory_kibibytes,
            time_cost=cost.passes,
            parallelism=cost.lanes,
            type=argon2.Type.ID,
        )
        self._unmatched_hash = self._argon2.hash(secrets.token_urlsafe())
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="argon2")
        self._jobs_max = threads + waiting_max
        self._jobs = 0
        self._lock = threading.Lock()

    async def hash(self, password: str) -> str:
        """Return the hash of a password, with its own salt and cost. Raises OverloadedError."""
        return await self._run(lambda: self._argon2.hash(_normalised(password)))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Return whether the password has this hash; None takes as long and is never right.

        Raises OverloadedError.
        """
        known = password_hash is not None
        right = await self._run(
            lambda: self._matches(password_hash or self._unmatched_hash, password)
        )
        return right and known

    def needs_rehash(self, password_hash: str) -> bool:
        """Return whether the hash was made with another cost than today's."""
        return self._argon2.check_needs_rehash(password_hash)

    def close(self) -> None:
        """Let the running hashes end and drop the waiting ones."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _matches(self, password_hash: str, password: str) -> bool:
        try:
            return self._argon2.verify(password_hash, _normalised(password))
        except argon2.exceptions.VerifyMismatchError:
            return False

    async def _run(self, job: Callable[[], Answer]) -> Answer:
        with self._lock:
            if self._jobs >= self._jobs_max:
                raise OverloadedError(
                    "too many passwords wait to be checked; try again in a moment",
                    metadata={"max_waiting": str(self._jobs_max)},
                    retry_after_seconds=_RETRY_SECONDS,
                )
            self._jobs += 1
        future = self._pool.submit(job)
        # Counted down when the thread is done, not when the caller goes away: a cancelled call
        # still computes.
        future.add_done_callback(self._count_down)
        return await asyncio.wrap_future(future)

    def _count_down(self, _future: Future[Answer]) -> None:
        with self._lock:
            self._jobs -= 1


def _normalised(password: str) -> str:
    # Keyboards spell one character in several ways (NIST SP 800-63B, section 5.1.1.2).
    return unicodedata.normalize("NFKC", password)
