"""A payout bridge on loopback, and the same one without HTTP; well behaved and badly behaved.

How it behaves follows from the destination of a payout: `Behaviour`.
"""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from services.ledger.domain.withdrawals import Withdrawal
from services.ledger.withdrawal_ports import PayoutAnswer, PayoutStatus, PayoutUncertainError

SECRET = "bridge-secret"


class Behaviour(StrEnum):
    """How the bridge behaves towards a destination of this name."""

    PAYS = "pays"
    PAYS_LATER = "pays_later"
    REFUSES = "refuses"
    ANSWERS_LATE = "answers_late"
    DROPS_AFTER_ACCEPTING = "drops_after_accepting"
    DROPS_BEFORE_ACCEPTING = "drops_before_accepting"
    BREAKS_ONCE = "breaks_once"
    TELLS_ANOTHER_AMOUNT = "tells_another_amount"


@dataclass
class Payout:
    """Is what the bridge keeps of a payout."""

    payout_id: str
    amount_minor: int
    currency_code: str
    destination: str
    status: PayoutStatus
    reason: str = ""


@dataclass
class PayoutBook:
    """Is what the bridge knows: payouts by idempotency key, and how often it was asked for what."""

    payouts: dict[str, Payout] = field(default_factory=dict)
    creates: Counter[str] = field(default_factory=Counter)
    finds: Counter[str] = field(default_factory=Counter)
    money_moves: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def create(self, key: str, amount: int, currency: str, destination: str) -> Payout | None:
        """Accept a payout, or return the one that was accepted; None for the key of another."""
        with self.lock:
            known = self.payouts.get(key)
            if known is not None:
                same = (known.amount_minor, known.currency_code, known.destination)
                return known if same == (amount, currency, destination) else None
            payout = Payout(
                f"po-{len(self.payouts)}", amount, currency, destination, status=PENDING
            )
            if destination == Behaviour.REFUSES:
                payout.status, payout.reason = PayoutStatus.REFUSED, "the account is closed"
            elif destination != Behaviour.PAYS_LATER:
                self._pay(key, payout)
            self.payouts[key] = payout
            return payout

    def find(self, key: str) -> Payout | None:
        """Return a payout; one that is paid later is paid when it is asked about twice."""
        with self.lock:
            self.finds[key] += 1
            payout = self.payouts.get(key)
            if payout is not None and payout.status is PENDING and self.finds[key] > 1:
                self._pay(key, payout)
            return payout

    def first_time(self, key: str) -> bool:
        """Count a request to pay; say whether it is the first."""
        with self.lock:
            self.creates[key] += 1
            return self.creates[key] == 1

    def _pay(self, key: str, payout: Payout) -> None:
        payout.status = PayoutStatus.PAID
        self.money_moves[key] += 1


PENDING = PayoutStatus.PENDING


class BookProvider:
    """Is the bridge without HTTP, for tests of many steps."""

    def __init__(self, book: PayoutBook) -> None:
        self.book = book

    async def create(self, withdrawal: Withdrawal) -> PayoutAnswer:
        key, destination = withdrawal.withdrawal_id, withdrawal.payout_destination
        first = self.book.first_time(key)
        if destination == Behaviour.DROPS_BEFORE_ACCEPTING and first:
            raise PayoutUncertainError("unreachable")
        if destination == Behaviour.BREAKS_ONCE and first:
            raise PayoutUncertainError("http_500")
        payout = self.book.create(
            key, withdrawal.amount_minor, withdrawal.currency_code, destination
        )
        if payout is None:
            raise PayoutUncertainError("http_409")
        if destination == Behaviour.TELLS_ANOTHER_AMOUNT:
            raise PayoutUncertainError("answer_differs")
        if destination in (Behaviour.ANSWERS_LATE, Behaviour.DROPS_AFTER_ACCEPTING) and first:
            raise PayoutUncertainError("timeout")
        return _answer(payout)

    async def find(self, withdrawal: Withdrawal) -> PayoutAnswer | None:
        payout = self.book.find(withdrawal.withdrawal_id)
        if payout is None:
            return None
        if payout.destination == Behaviour.TELLS_ANOTHER_AMOUNT:
            raise PayoutUncertainError("answer_differs")
        return _answer(payout)


def _answer(payout: Payout) -> PayoutAnswer:
    return PayoutAnswer(status=payout.status, payout_id=payout.payout_id, reason=payout.reason)


class PayoutBridge:
    """Serves a book over HTTP on loopback."""

    def __init__(self) -> None:
        self.book = PayoutBook()
        self.over = threading.Event()
        self.server = _Server(("127.0.0.1", 0), _Handler)
        self.server.bridge = self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def settings(self) -> dict[str, Any]:
        """Return what a ledger process must be told to pay through this bridge."""
        return {
            "ledger_payout_provider": "http",
            "ledger_payout_url": self.url,
            "ledger_payout_secret": SECRET,
            "ledger_payout_timeout_seconds": 0.5,
            "ledger_payout_idle_seconds": 0.05,
            "ledger_payout_retry_seconds": 0.1,
        }


@contextmanager
def running_bridge() -> Iterator[PayoutBridge]:
    """Run a bridge until the block ends."""
    bridge = PayoutBridge()
    thread = threading.Thread(target=bridge.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield bridge
    finally:
        bridge.over.set()
        bridge.server.shutdown()
        bridge.server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    """Is a server that its handlers know the bridge by."""

    daemon_threads = True
    bridge: PayoutBridge


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"

    @property
    def bridge(self) -> PayoutBridge:
        server: Any = self.server
        found: PayoutBridge = server.bridge
        return found

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        key = body["idempotency_key"]
        if not self.is_known() or key != self.headers["idempotency-key"]:
            self.answer(401, {})
            return
        destination = body["destination"]
        first = self.bridge.book.first_time(key)
        if destination == Behaviour.DROPS_BEFORE_ACCEPTING and first:
            self.close_connection = True
            return
        if destination == Behaviour.BREAKS_ONCE and first:
            self.answer(500, {"error": "broken"})
            return
        payout = self.bridge.book.create(
            key, body["amount_minor"], body["currency_code"], destination
        )
        if payout is None:
            self.answer(409, {"error": "the key is another payout's"})
            return
        if destination == Behaviour.DROPS_AFTER_ACCEPTING and first:
            self.close_connection = True
            return
        if destination == Behaviour.ANSWERS_LATE and first:
            self.bridge.over.wait(3)
        self.tell(key, payout)

    def do_GET(self) -> None:
        if not self.is_known():
            self.answer(401, {})
            return
        prefix, _, key = self.path.rpartition("/")
        if prefix != "/payouts":
            self.answer(404, {"error": "there is nothing here"})
            return
        payout = self.bridge.book.find(key)
        if payout is None:
            self.answer(404, {"idempotency_key": key, "status": "UNKNOWN"})
            return
        self.tell(key, payout)

    def is_known(self) -> bool:
        return bool(self.headers["authorization"] == f"Bearer {SECRET}")

    def tell(self, key: str, payout: Payout) -> None:
        wrong = payout.destination == Behaviour.TELLS_ANOTHER_AMOUNT
        self.answer(
            200,
            {
                "payout_id": payout.payout_id,
                "idempotency_key": key,
                "status": payout.status,
                "amount_minor": payout.amount_minor + wrong,
                "currency_code": payout.currency_code,
                "reason": payout.reason,
                "fee_minor": 12,
            },
        )

    def answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            # Whoever asked did not wait.
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
