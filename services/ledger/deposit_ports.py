"""What deposits need of the outside, as Protocols. Implemented in store/ and gateways/."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from services.ledger.domain.deposits import (
    Deposit,
    GatewayName,
    Notification,
    PaymentStatus,
    WebhookOutcome,
)
from services.ledger.ports import NewEvent, Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayAccount:
    """Is a tenant's account at a gateway. Amounts are in minor units of the gateway's currency.

    `previous_secret` still verifies, and signs nothing: empty unless the secret was changed.
    """

    merchant_id: str
    secret: str = field(repr=False)
    previous_secret: str = field(default="", repr=False)
    live: bool
    minimum_minor: int
    maximum_minor: int
    return_url: str
    checkout_url: str

    @property
    def verifying_secrets(self) -> tuple[str, ...]:
        """Return the secrets that a notification may be signed with."""
        return tuple(secret for secret in (self.secret, self.previous_secret) if secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Is what a person is asked to pay; `webhook_url` is where the gateway tells of it."""

    order_id: str
    amount_minor: int
    currency_code: str
    return_url: str
    webhook_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """Says how to pay: a page to open, or a form to post when there are fields."""

    url: str
    form_fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookPost:
    """Is what somebody posted, as it came. Names of headers are in lower case."""

    body: bytes = field(repr=False)
    content_type: str
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadWebhook:
    """Is a notification as it was read, not believed yet.

    `signed` are the texts of which one must bear the `signature`; `merchant_id` is empty where
    the gateway does not say it.
    """

    notification: Notification
    signed: tuple[str, ...] = field(repr=False)
    signature: str = field(repr=False)
    merchant_id: str


class PaymentGateway(Protocol):
    """Speaks the protocol of one gateway."""

    name: GatewayName
    currency_code: str

    def checkout(self, order: Order, account: GatewayAccount) -> Checkout:
        """Return how to pay an order."""
        ...

    def read(self, post: WebhookPost) -> ReadWebhook:
        """Read a notification without believing it.

        Raises SignatureInvalidError if the signature is missing or does not cover what counts,
        WebhookMalformedError if it cannot be read.
        """
        ...

    def is_from(self, webhook: ReadWebhook, account: GatewayAccount) -> bool:
        """Say whether a notification bears the signature of an account; takes constant time."""
        ...


class Gateways(Protocol):
    """Knows the gateways, and the tenants' accounts at them."""

    def gateway(self, name: GatewayName) -> PaymentGateway:
        """Return a gateway."""
        ...

    def account(self, name: GatewayName, tenant_id: str) -> GatewayAccount | None:
        """Return a tenant's account, the default one if it has none of its own, or None."""
        ...

    def accounts(self, name: GatewayName) -> list[GatewayAccount]:
        """Return every account at a gateway."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLine:
    """Is what is kept of a webhook, or of so many that were refused for the same reason.

    What was not verified is kept only as far as it cannot hold anything personal: its hash, an
    order id that is a UUID, status, amount, currency.
    """

    line_id: str
    tenant_id: str
    gateway: GatewayName
    outcome: WebhookOutcome
    reason: str
    is_verified: bool
    deposit_id: str
    order_id: str
    payment_id: str
    status: PaymentStatus | None
    amount_minor: int | None
    currency_code: str
    body_hash: bytes
    body_bytes: int
    webhook_count: int
    receive_time: datetime


class HeldDeposit(Protocol):
    """Is a deposit whose row is locked until the transaction ends."""

    deposit: Deposit

    async def change(
        self, changed: Deposit, *, event: NewEvent | None, line: AuditLine | None
    ) -> None:
        """Write what changed, with its event and what is kept of the webhook.

        Raises PaymentTakenError if the payment was taken for another deposit.
        """
        ...


class PaymentTakenError(Exception):
    """Says that a gateway's payment was counted for another deposit before."""


class DepositStore(Protocol):
    """Keeps deposits and what came of webhooks."""

    async def create(self, deposit: Deposit, event: NewEvent) -> Deposit:
        """Keep a new deposit, and return it, or the one that has its id already."""
        ...

    async def find(self, reader: Reader, deposit_id: str) -> Deposit | None:
        """Return a deposit that the reader may see, or None."""
        ...

    async def find_order(self, order_id: str) -> Deposit | None:
        """Return the deposit of any tenant that a gateway knows as this order, or None."""
        ...

    def held(
        self, tenant_id: str, deposit_id: str
    ) -> AbstractAsyncContextManager[HeldDeposit | None]:
        """Open a transaction that locks a deposit; it commits when the block ends."""
        ...

    async def overdue(self, *, now: datetime, most: int) -> list[tuple[str, str]]:
        """Return tenant and id of deposits that were not paid in time, the oldest first."""
        ...

    async def unfinished(self, *, before: datetime, most: int) -> list[Deposit]:
        """Return deposits whose money was due to move since before a moment, the oldest first."""
        ...

    async def note(self, lines: list[AuditLine]) -> None:
        """Keep what came of webhooks that changed nothing."""
        ...
