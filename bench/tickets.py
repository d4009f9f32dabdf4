"""Times what tickets cost: signing, verifying on server and phone, drawing.

`python -m bench.tickets` prints the table. By CPU time of this process, a median of many; needs no
server.
"""

import statistics
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.table import Table

from bench.meters import describe_machine
from services.booking.domain import tickets
from services.booking.ticket_qr import qr_drawing, qr_png
from wayfare_client.tickets import TicketKey, verify_ticket

_REPEATS = 500


def main() -> None:
    """Print the table."""
    private_key = Ed25519PrivateKey.generate()
    public_key = tickets.public_key_of(private_key)
    key_id, start = tickets.key_id_of(public_key), datetime.now(UTC) - timedelta(days=1)
    content = tickets.TicketContent(
        key_id=key_id,
        ticket_id=str(uuid.uuid4()),
        trip_id=str(uuid.uuid4()),
        from_stop_index=0,
        to_stop_index=3,
        seat_number="12A",
        passenger_key=tickets.passenger_key_of(str(uuid.uuid4())),
        issue_time=datetime.now(UTC).replace(microsecond=0),
        cash_due=False,
    )
    text = tickets.qr_text(tickets.sign(content, private_key))
    ours = {
        key_id: tickets.PublishedKey(key_id=key_id, public_key=public_key, sign_start_time=start)
    }
    theirs = {key_id: TicketKey(key_id=key_id, public_key=public_key, sign_start_time=start)}
    where = {"trip_id": content.trip_id}
    parts: list[tuple[str, Callable[[], object], int]] = [
        ("sign", lambda: tickets.sign(content, private_key), _REPEATS),
        ("verify, service", lambda: tickets.verify(text, ours, **where, stop_index=1), _REPEATS),
        ("verify, client", lambda: verify_ticket(text, theirs, **where, stop_index=1), _REPEATS),
        ("QR code as PNG", lambda: qr_png(text, module_size=8), _REPEATS // 10),
        ("QR code as characters", lambda: qr_drawing(text), _REPEATS // 10),
    ]
    machine = describe_machine()
    table = Table(
        "part", "median µs", "p99 µs", title=f"{machine['processor']}, {machine['cores']} cores"
    )
    for name, work, repeats in parts:
        spans = [_span(work) for _ in range(repeats)]
        table.add_row(
            name,
            f"{statistics.median(spans):,.0f}",
            f"{sorted(spans)[int(len(spans) * 0.99)]:,.0f}",
        )
    Console().print(table)


def _span(work: Callable[[], object]) -> float:
    begin = time.process_time_ns()
    work()
    return (time.process_time_ns() - begin) / 1_000


if __name__ == "__main__":
    main()
