"""Calls the functions of the .lua files beside it, in Valkey. Used by every store of live state."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from redis.exceptions import ResponseError

from services.shared.errors import DependencyUnavailableError
from services.shared.valkey import VALKEY_AWAY, Valkey

LIBRARIES = tuple(path.read_text() for path in sorted(Path(__file__).parent.glob("*.lua")))
# What a server answers that lives and cannot take writes for now: full, or not done starting.
_CANNOT_NOW = ("OOM", "MISCONF", "LOADING", "BUSY", "NOREPLICAS", "MASTERDOWN")


@asynccontextmanager
async def valkey_answers() -> AsyncIterator[None]:
    """Raise DependencyUnavailableError when Valkey is away, or cannot take a write for now."""
    try:
        yield
    except VALKEY_AWAY as error:
        raise DependencyUnavailableError("valkey") from error
    except ResponseError as error:
        if any(word in str(error) for word in _CANNOT_NOW):
            raise DependencyUnavailableError("valkey") from error
        raise


class ValkeyFunctions:
    """Calls functions by one client, and brings them to servers that lack them."""

    def __init__(self, client: Valkey) -> None:
        """Call by `client`."""
        self._client = client
        self._loaded = False

    async def load_once(self) -> None:
        """Load the functions, replacing those of older versions; once per process."""
        if not self._loaded:
            await self._load()
            self._loaded = True

    async def _load(self) -> None:
        async with valkey_answers():
            for library in LIBRARIES:
                await self._client.function_load(library, replace=True)

    async def call(
        self, function: str, key: str, arguments: Sequence[str | int | float | bytes]
    ) -> Any:
        """Call `function` with one key, which decides the slot on a cluster."""
        async with valkey_answers():
            try:
                return await self._client.fcall(function, 1, key, *arguments)
            except ResponseError as error:
                if "function not found" not in str(error).lower():
                    raise
        # A server that came back empty, or is new to the cluster.
        await self._load()
        async with valkey_answers():
            return await self._client.fcall(function, 1, key, *arguments)
