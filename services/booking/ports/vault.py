"""What operations need to keep travellers' names and documents secret."""

from typing import Protocol

from services.booking.domain.passengers import SealedTo, Traveller


class Vault(Protocol):
    """Seals and opens travellers."""

    def seal(self, traveller: Traveller, to: SealedTo) -> bytes:
        """Return the traveller sealed to one row."""
        ...

    def open(self, sealed: bytes, to: SealedTo) -> Traveller:
        """Return the traveller of that row."""
        ...
