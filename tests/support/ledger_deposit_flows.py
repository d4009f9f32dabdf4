"""Deposits in a simulation: what people pay at a gateway, and how the gateway tells of it.

A gateway posts until it is answered: what is cut comes again.
"""

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta

from services.ledger.deposit_errors import SignatureInvalidError
from services.ledger.deposit_ports import WebhookPost
from services.ledger.domain.accounts import AccountKey, AccountKind, derived_id
from services.ledger.domain.deposits import GatewayName, WebhookOutcome
from services.ledger.operations.deposits import NewDeposit
from services.stack.payment_gateways import News, Payment, kashier_post, payhere_post
from tests.support.ledger_flows import wallet
from tests.support.ledger_parts import ACCOUNTS, LedgerParts
from tests.support.ledger_simulation import Flow, Simulation

CODES = {GatewayName.KASHIER: "EGP", GatewayName.PAYHERE: "LKR"}
_TOOK = (WebhookOutcome.APPLIED, WebhookOutcome.DUPLICATE)
_EXPIRED_AFTER = timedelta(hours=2)


@dataclass(frozen=True, kw_only=True)
class Paid:
    """Is a deposit as its person and its gateway know it, before it is asked for too."""

    simulation: Simulation
    user_id: str
    amount: int
    gateway: GatewayName
    request_id: str
    payment_id: str

    @property
    def code(self) -> str:
        """Return the currency of the gateway."""
        return CODES[self.gateway]

    @property
    def deposit_id(self) -> str:
        """Return the id that the request makes."""
        caller = f"user:{self.user_id}"
        return derived_id("CreateDeposit", self.simulation.tenant_id, caller, self.request_id)

    @property
    def clearing(self) -> AccountKey:
        """Return what the gateway owes."""
        return AccountKey(AccountKind.GATEWAY_CLEARING, self.gateway, self.code)

    @property
    def moves(self) -> dict[AccountKey, int]:
        """Return what a payment moves."""
        return {self.clearing: -self.amount, wallet(self.user_id, self.code): self.amount}

    async def ask(self, parts: LedgerParts) -> None:
        """Ask for the deposit, again too."""
        wanted = NewDeposit(
            tenant_id=self.simulation.tenant_id,
            user_id=self.user_id,
            caller=f"user:{self.user_id}",
            gateway=self.gateway,
            amount_minor=self.amount,
            currency_code=self.code,
            reference="",
            return_url="",
            expire_time=None,
            request_id=self.request_id,
        )
        deposit, _ = await parts.deposits.create(wanted)
        assert deposit.deposit_id == self.deposit_id

    async def tell(self, parts: LedgerParts, payment: Payment) -> WebhookOutcome:
        """Tell of the payment as the gateway does."""
        return await parts.webhooks.receive(self.gateway, self._post(payment))

    async def forge(self, parts: LedgerParts) -> None:
        """Tell of a payment as somebody does who does not know the secret."""
        told = self._post(Payment.PAID)
        forged = replace(
            told,
            body=told.body.replace(b"&md5sig=", b"&md5sig=0"),
            headers={name: "0" * len(text) for name, text in told.headers.items()},
        )
        try:
            outcome = await parts.webhooks.receive(self.gateway, forged)
        except SignatureInvalidError:
            self.simulation.forged_count += 1
        else:
            raise AssertionError(f"a forged webhook was taken: {outcome}")

    def _post(self, payment: Payment) -> WebhookPost:
        news = News(
            order_id=self.deposit_id,
            payment_id=self.payment_id,
            payment=payment,
            amount=f"{self.amount // 100}.{self.amount % 100:02}",
            currency_code=self.code,
        )
        sign = kashier_post if self.gateway is GatewayName.KASHIER else payhere_post
        post = sign(ACCOUNTS, news)
        signature = {name: text for name, text in post.headers.items() if name.startswith("x-")}
        return WebhookPost(
            body=post.body, content_type=post.headers["content-type"], headers=signature
        )


def paid_by(
    simulation: Simulation,
    user_id: str,
    amount: int,
    gateway: GatewayName = GatewayName.KASHIER,
) -> Paid:
    """Return a deposit that is not asked for yet."""
    return Paid(
        simulation=simulation,
        user_id=user_id,
        amount=amount,
        gateway=gateway,
        request_id=simulation.new_id(),
        payment_id=f"TX-{simulation.new_id()}",
    )


def deposit(paid: Paid) -> Flow:
    """Pay a deposit at the second attempt; somebody forges, and the gateway tells twice."""

    async def talk(parts: LedgerParts) -> None:
        await paid.ask(parts)
        await paid.forge(parts)
        await paid.tell(parts, Payment.FAILED)
        assert await paid.tell(parts, Payment.PAID) in _TOOK
        assert await paid.tell(parts, Payment.PAID) is WebhookOutcome.DUPLICATE
        await paid.forge(parts)

    return Flow(name="deposit", talk=talk, moves=paid.moves, transfer_count=1)


def deposit_late(paid: Paid) -> Flow:
    """Let a deposit expire; the gateway tells of the payment after that."""

    async def talk(parts: LedgerParts) -> None:
        await paid.ask(parts)
        paid.simulation.clock.moment += _EXPIRED_AFTER
        await parts.deposits.expire()
        assert await paid.tell(parts, Payment.PAID) in _TOOK

    return Flow(name="deposit late", talk=talk, moves=paid.moves, transfer_count=1)


def charge_back(paid: Paid) -> Flow:
    """Take back a deposit that succeeded; the operator bears what the wallet has no more."""
    borne = min(paid.amount, paid.simulation.balance(wallet(paid.user_id, paid.code)))

    async def talk(parts: LedgerParts) -> None:
        assert await paid.tell(parts, Payment.CHARGED_BACK) in _TOOK
        assert await paid.tell(parts, Payment.CHARGED_BACK) is WebhookOutcome.DUPLICATE
        assert await paid.tell(parts, Payment.PAID) is WebhookOutcome.DUPLICATE

    moves = {
        paid.clearing: paid.amount,
        wallet(paid.user_id, paid.code): -borne,
        AccountKey(AccountKind.REVENUE, "", paid.code): borne - paid.amount,
    }
    return Flow(name="charge back", talk=talk, moves=moves, transfer_count=1)


def charge_back_first(paid: Paid) -> Flow:
    """Hear of the charge-back before the payment: nothing moves."""

    async def talk(parts: LedgerParts) -> None:
        await paid.ask(parts)
        assert await paid.tell(parts, Payment.CHARGED_BACK) in _TOOK
        assert await paid.tell(parts, Payment.PAID) is WebhookOutcome.IGNORED
        assert await paid.tell(parts, Payment.FAILED) is WebhookOutcome.IGNORED

    return Flow(name="charge back first", talk=talk, moves={}, transfer_count=0)


def deposit_raced(paid: Paid) -> Flow:
    """Hear of payment and charge-back at once, each twice: taken and given back, or neither."""

    async def talk(parts: LedgerParts) -> None:
        await paid.ask(parts)
        news = (Payment.PAID, Payment.CHARGED_BACK, Payment.PAID, Payment.CHARGED_BACK)
        told = await asyncio.gather(
            *(paid.tell(parts, one) for one in news), return_exceptions=True
        )
        errors = [one for one in told if isinstance(one, BaseException)]
        if errors:
            raise errors[0]

    return Flow(
        name="deposit raced",
        talk=talk,
        moves={},
        transfer_count=0,
        others=[({}, 2)],
        abandoned=[paid.moves],
    )
