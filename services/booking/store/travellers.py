"""Opens what travellers told of themselves. Implements ports.tickets.Travellers."""

from collections.abc import Mapping, Sequence

from services.booking.domain.issuing import IssuedTicket
from services.booking.domain.passengers import SealedTo, Traveller
from services.booking.ports.vault import Vault
from services.shared.postgres import Database, Session

_SEALED = """
SELECT passenger_id, booking_id, sealed FROM booking.passengers
WHERE booking_id = ANY ($1::uuid[]) AND passenger_id = ANY ($2::uuid[])
"""


class PostgresTravellers:
    """Reads the sealed travellers of tickets and opens them."""

    def __init__(self, database: Database, vault: Vault) -> None:
        """Take the database of role wayfare_booking, and what opens the seals."""
        self._database = database
        self._vault = vault

    async def of(self, tenant_id: str, tickets: Sequence[IssuedTicket]) -> Mapping[str, Traveller]:
        """Return by their ids the passengers of these tickets."""
        if not tickets:
            return {}
        session = Session(tenant_id=tenant_id, role="SERVICE")
        async with self._database.transaction(session) as connection:
            rows = await connection.fetch(
                _SEALED,
                list({ticket.booking_id for ticket in tickets}),
                [ticket.passenger_id for ticket in tickets],
            )
        return {
            passenger_id: self._vault.open(
                sealed, SealedTo(tenant_id, str(booking_id), passenger_id)
            )
            for passenger_id, booking_id, sealed in (
                (str(row["passenger_id"]), row["booking_id"], row["sealed"]) for row in rows
            )
        }
