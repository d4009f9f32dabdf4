"""Withdrawals in a simulation: people ask, ADMINs decide, and a provider pays as it likes."""

import asyncio
from dataclasses import dataclass, field

from services.ledger.domain.accounts import AccountKey, AccountKind
from services.ledger.domain.withdrawals import Decision, State, Withdrawal
from services.ledger.operations.withdrawals import WithdrawalRequest
from services.ledger.withdrawal_errors import WithdrawalAlreadyDecidedError
from tests.support.ledger_flows import CODE, wallet
from tests.support.ledger_parts import OUTLIVES_CLAIM, LedgerParts
from tests.support.ledger_simulation import Flow, Simulation
from tests.support.payout_bridge import Behaviour

WITHDRAWALS = AccountKey(AccountKind.WITHDRAWALS, "", CODE)
# Whatever the provider does meanwhile, it pays in the end.
PAYING = (
    Behaviour.PAYS,
    Behaviour.PAYS_LATER,
    Behaviour.ANSWERS_LATE,
    Behaviour.DROPS_AFTER_ACCEPTING,
    Behaviour.DROPS_BEFORE_ACCEPTING,
    Behaviour.BREAKS_ONCE,
    OUTLIVES_CLAIM,
)
# Held, and posted or voided.
_TRANSFERS = 2


@dataclass(frozen=True, kw_only=True)
class _Wish:
    """Is what a person asks for, and the ids of those who decide."""

    simulation: Simulation
    request: WithdrawalRequest
    approval_id: str
    rejection_id: str
    admin_id: str

    async def ask(self, parts: LedgerParts) -> None:
        """Ask twice at once."""
        asked = await asyncio.gather(
            *(parts.withdrawals.request(self.request) for _ in range(2)), return_exceptions=True
        )
        _raise_first(asked)

    async def approve(self, parts: LedgerParts) -> Withdrawal:
        return await parts.withdrawals.decide(
            self.simulation.tenant_id, self._decision(State.APPROVED, self.approval_id)
        )

    async def reject(self, parts: LedgerParts) -> Withdrawal:
        return await parts.withdrawals.decide(
            self.simulation.tenant_id, self._decision(State.REJECTED, self.rejection_id)
        )

    def _decision(self, state: State, request_id: str) -> Decision:
        return Decision(
            state=state,
            withdrawal_id=self.request.withdrawal_id,
            admin_id=self.admin_id,
            role="ADMIN",
            request_id=request_id,
            reason="no papers" if state is State.REJECTED else "",
        )


def withdraw(simulation: Simulation, user_id: str, amount: int, destination: str) -> Flow:
    """Withdraw an amount; the provider pays it in the end, or refuses."""
    wish = _wish(simulation, user_id, amount, destination)

    async def talk(parts: LedgerParts) -> None:
        await wish.ask(parts)
        await wish.approve(parts)

    is_paid = destination != Behaviour.REFUSES
    return Flow(
        name=f"withdraw {destination}",
        talk=talk,
        moves=_moves(user_id, amount) if is_paid else {},
        transfer_count=_TRANSFERS,
    )


def withdraw_rejected(simulation: Simulation, user_id: str, amount: int) -> Flow:
    """Ask for a withdrawal that an ADMIN rejects."""
    wish = _wish(simulation, user_id, amount, Behaviour.PAYS)

    async def talk(parts: LedgerParts) -> None:
        await wish.ask(parts)
        await wish.reject(parts)

    return Flow(name="withdraw rejected", talk=talk, moves={}, transfer_count=_TRANSFERS)


def withdraw_raced(simulation: Simulation, user_id: str, amount: int) -> Flow:
    """Ask for a withdrawal that one ADMIN approves while another rejects it: one of them wins.

    And it is the same one, however often both come again.
    """
    wish = _wish(simulation, user_id, amount, Behaviour.PAYS)
    winners = _Winners()

    async def talk(parts: LedgerParts) -> None:
        await wish.ask(parts)
        decided = await asyncio.gather(
            wish.approve(parts), wish.reject(parts), return_exceptions=True
        )
        won = [not isinstance(one, WithdrawalAlreadyDecidedError) for one in decided]
        winners.note(won)
        _raise_first([one for one, has_won in zip(decided, won, strict=True) if has_won])

    return Flow(
        name="withdraw raced",
        talk=talk,
        moves=_moves(user_id, amount),
        transfer_count=_TRANSFERS,
        others=[({}, _TRANSFERS)],
    )


@dataclass
class _Winners:
    """Remembers who was told to have lost."""

    lost: set[int] = field(default_factory=set)

    def note(self, won: list[bool]) -> None:
        self.lost |= {index for index, has_won in enumerate(won) if not has_won}
        assert len(self.lost) < len(won), "both were told that the other decided"


def _wish(simulation: Simulation, user_id: str, amount: int, destination: str) -> _Wish:
    return _Wish(
        simulation=simulation,
        request=WithdrawalRequest(
            tenant_id=simulation.tenant_id,
            user_id=user_id,
            currency_code=CODE,
            amount_minor=amount,
            payout_destination=destination,
            request_id=simulation.new_id(),
        ),
        approval_id=simulation.new_id(),
        rejection_id=simulation.new_id(),
        admin_id=simulation.new_id(),
    )


def _moves(user_id: str, amount: int) -> dict[AccountKey, int]:
    return {wallet(user_id): -amount, WITHDRAWALS: amount}


def _raise_first(answers: list[Withdrawal | BaseException]) -> None:
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
