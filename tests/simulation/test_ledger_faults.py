"""Cuts between every two awaits of what moves money: nothing is lost, made, or done twice.

First a cut at every call of each flow, one at a time; then a random run, cut again and again. A
failure names the seed that replays it. What runs by night:

    WAYFARE_SIMULATION_FULL=1 WAYFARE_SIMULATION_SECONDS=600 python -m pytest tests/simulation

makes every kind of cut at every call, and walks for ten minutes. WAYFARE_SIMULATION_SEED replays.
"""

import os
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import pytest

from services.ledger.domain.deposits import GatewayName
from services.ledger.domain.settlement import PaymentMethod
from services.shared.events.streams import partition_of
from tests.support import ledger_deposit_flows as deposits
from tests.support import ledger_flows as flows
from tests.support import ledger_withdrawal_flows as withdrawals
from tests.support.fault_cuts import Cut
from tests.support.ledger_parts import OUTLIVES_CLAIM
from tests.support.ledger_simulation import Flow, Simulation, open_simulation
from tests.support.payout_bridge import Behaviour
from tests.support.stack_fixtures import TestDatabase

SEED = int(os.environ.get("WAYFARE_SIMULATION_SEED", "0")) or secrets.randbelow(10**9) + 1
SECONDS = float(os.environ.get("WAYFARE_SIMULATION_SECONDS", "8"))
FULL = os.environ.get("WAYFARE_SIMULATION_FULL", "") == "1"
# More calls than a flow makes: a cut that comes too late shows that all were tried.
CALLS_MAX = 400
# Two transactions, each of a BEGIN, a session, a statement, a COMMIT and a reset.
CALLS_LEAST = 10
# By day one of so many calls of a long flow is cut; not a multiple of how many kinds there are.
STRIDE = 17
TIMEOUT = 3_600 if FULL else 300 + SECONDS

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(TIMEOUT)]


@pytest.fixture
async def simulation(migrated_database: TestDatabase, valkey_url: str) -> AsyncIterator[Simulation]:
    async with open_simulation(migrated_database, valkey_url, SEED) as opened:
        yield opened


def settle_wallet(simulation: Simulation, passenger: str, driver: str) -> Flow:
    return flows.settle(simulation, passenger, driver, 200)


def settle_cash(simulation: Simulation, passenger: str, driver: str) -> Flow:
    return flows.settle(simulation, passenger, driver, 200, PaymentMethod.CASH)


def settle_held(simulation: Simulation, passenger: str, driver: str) -> Flow:
    return flows.settle_held(simulation, passenger, driver, 200)


def post_a_part(simulation: Simulation, passenger: str, driver: str) -> Flow:
    return flows.two_phases(simulation, passenger, 200, 150)


def void(simulation: Simulation, passenger: str, driver: str) -> Flow:
    return flows.two_phases(simulation, passenger, 200, 0)


def expire(simulation: Simulation, passenger: str, driver: str) -> Flow:
    return flows.expire(simulation, passenger, 200)


FLOWS = (settle_wallet, settle_cash, settle_held, post_a_part, void, expire)


def deposit(simulation: Simulation, passenger: str, driver: str) -> Flow:
    return deposits.deposit(deposits.paid_by(simulation, passenger, 20_000))


def deposit_late(simulation: Simulation, passenger: str, driver: str) -> Flow:
    paid = deposits.paid_by(simulation, passenger, 20_000, GatewayName.PAYHERE)
    return deposits.deposit_late(paid)


def charge_back_first(simulation: Simulation, passenger: str, driver: str) -> Flow:
    paid = deposits.paid_by(simulation, passenger, 20_000, GatewayName.PAYHERE)
    return deposits.charge_back_first(paid)


def deposit_raced(simulation: Simulation, passenger: str, driver: str) -> Flow:
    paid = deposits.paid_by(simulation, passenger, 20_000, GatewayName.PAYHERE)
    return deposits.deposit_raced(paid)


def withdraw(simulation: Simulation, passenger: str, driver: str) -> Flow:
    destination = simulation.random.choice(withdrawals.PAYING)
    return withdrawals.withdraw(simulation, passenger, 200, destination)


def withdraw_late(simulation: Simulation, passenger: str, driver: str) -> Flow:
    return withdrawals.withdraw(simulation, passenger, 200, OUTLIVES_CLAIM)


def withdraw_refused(simulation: Simulation, passenger: str, driver: str) -> Flow:
    return withdrawals.withdraw(simulation, passenger, 200, Behaviour.REFUSES)


def withdraw_rejected(simulation: Simulation, passenger: str, driver: str) -> Flow:
    return withdrawals.withdraw_rejected(simulation, passenger, 200)


def withdraw_raced(simulation: Simulation, passenger: str, driver: str) -> Flow:
    return withdrawals.withdraw_raced(simulation, passenger, 200)


# Of many calls; by day one of so many is cut.
LONG_FLOWS = (
    deposit,
    deposit_late,
    charge_back_first,
    deposit_raced,
    withdraw,
    withdraw_late,
    withdraw_refused,
    withdraw_rejected,
    withdraw_raced,
)

ABANDONED = (settle_held, deposit, deposit_raced, withdraw, withdraw_raced)


def cuts(*, stride: int = 1) -> Iterator[tuple[int, Cut]]:
    """Yield a cut at every call, of a kind that goes round with the seed; or every kind.

    With a `stride` only every so many calls is cut, from one that the seed chooses; by night all.
    """
    stride = 1 if FULL else stride
    for at in range(1 + SEED % stride, CALLS_MAX, stride):
        kinds = list(Cut)
        yield from ((at, cut) for cut in (kinds if FULL else [kinds[(SEED + at) % len(kinds)]]))
    raise AssertionError("there are more calls than were cut")


@contextmanager
def replayable(simulation: Simulation) -> Iterator[None]:
    """Say of a failure how it is had again."""
    try:
        yield
    except BaseException as error:
        error.add_note("\n".join(simulation.story[-12:]))
        error.add_note(f"Replay: WAYFARE_SIMULATION_SEED={SEED}")
        raise


@pytest.mark.parametrize("make", [*FLOWS, *LONG_FLOWS])
async def test_every_call_may_be_cut(
    simulation: Simulation, make: Callable[[Simulation, str, str], Flow]
) -> None:
    passenger, driver = simulation.new_id(), simulation.new_id()
    with replayable(simulation):
        await simulation.do(flows.fund(simulation, passenger, 1_000_000))
        for at, cut in cuts(stride=STRIDE if make in LONG_FLOWS else 1):
            if not await simulation.do(make(simulation, passenger, driver), [(at, cut)]):
                break
        await simulation.check_events()
    assert at >= CALLS_LEAST


@pytest.mark.parametrize("make", ABANDONED)
async def test_what_a_client_never_comes_back_to_is_done_or_undone(
    simulation: Simulation, make: Callable[[Simulation, str, str], Flow]
) -> None:
    passenger, driver = simulation.new_id(), simulation.new_id()
    with replayable(simulation):
        await simulation.do(flows.fund(simulation, passenger, 1_000_000))
        for at, cut in cuts(stride=STRIDE):
            flow = make(simulation, passenger, driver)
            if not await simulation.do(flow, [(at, cut)], gives_up=True):
                break
        await simulation.check_events()
    assert at >= CALLS_LEAST


async def test_every_call_of_a_refund_may_be_cut(simulation: Simulation) -> None:
    passenger = simulation.new_id()
    with replayable(simulation):
        await simulation.do(flows.fund(simulation, passenger, 1_000_000))
        for at, cut in cuts():
            payment, payment_id = flows.pay(simulation, passenger, 100)
            await simulation.do(payment)
            refund = flows.refund(simulation, passenger, payment_id, 60)
            if not await simulation.do(refund, [(at, cut)]):
                break
        await simulation.check_events()
    assert at >= CALLS_LEAST


async def test_every_call_of_a_charge_back_may_be_cut(simulation: Simulation) -> None:
    passenger = simulation.new_id()
    with replayable(simulation):
        for at, cut in cuts(stride=STRIDE):
            paid = deposits.paid_by(simulation, passenger, 20_000, GatewayName.PAYHERE)
            await simulation.do(deposits.deposit(paid))
            # Some of it is spent: the operator bears that.
            payment, _ = flows.pay(simulation, passenger, 5_000, "LKR")
            await simulation.do(payment)
            if not await simulation.do(deposits.charge_back(paid), [(at, cut)]):
                break
        await simulation.check_events()
    assert at >= CALLS_LEAST


async def test_every_call_of_a_consumer_may_be_cut(simulation: Simulation) -> None:
    passenger = simulation.new_id()
    with replayable(simulation):
        await simulation.do(flows.fund(simulation, passenger, 1_000_000))
        await simulation.consume()
        for at, cut in cuts():
            payment, payment_id = flows.pay(simulation, passenger, 100)
            await simulation.do(payment)
            partition = partition_of(f"transfer/{payment_id}")
            was_cut = await simulation.consume_cut(partition, at, cut)
            await simulation.check_effects()
            if not was_cut:
                break
    assert at >= CALLS_LEAST


async def test_a_random_run_keeps_the_books(simulation: Simulation) -> None:
    walk = Walk(simulation)
    end = time.monotonic() + SECONDS
    with replayable(simulation):
        await walk.begin()
        while time.monotonic() < end:
            await walk.step()
        await simulation.check_events()
    assert walk.step_count > SECONDS
    assert walk.cut_count > walk.step_count // 4


class Walk:
    """Chooses flows and cuts by the seed."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.random: random.Random = simulation.random
        self.people = [simulation.new_id() for _ in range(4)]
        self.payments: list[tuple[str, str, int]] = []
        self.paying: list[tuple[str, str, int]] = []
        self.deposits: list[deposits.Paid] = []
        self.depositing: list[deposits.Paid] = []
        self.step_count = 0
        self.cut_count = 0

    async def begin(self) -> None:
        for person in self.people:
            await self.simulation.do(flows.fund(self.simulation, person, 5_000))

    async def step(self) -> None:
        self.step_count += 1
        await self.disturb_valkey()
        flow = self.flow()
        cuts = [
            (self.random.randint(1, 60), self.random.choice(list(Cut)))
            for _ in range(self.random.choice((0, 1, 1, 1, 2, 3)))
        ]
        gives_up = bool(cuts) and self.random.random() < 0.15
        valkey_away = self.random.random() < 0.1
        self.cut_count += await self.simulation.do(
            flow, cuts, gives_up=gives_up, valkey_away=valkey_away
        )
        if not gives_up:
            self.payments += self.paying
            self.deposits += self.depositing
        self.paying, self.depositing = [], []

    async def disturb_valkey(self) -> None:
        """Empty Valkey now and then; what was published comes again."""
        if self.random.random() < 0.05:
            await self.simulation.valkey.flushall()

    def flow(self) -> Flow:
        simulation = self.simulation
        person, driver = self.random.sample(self.people, 2)
        has = simulation.balance(flows.wallet(person))
        driver_has = simulation.balance(flows.wallet(driver))
        if min(has, driver_has) < 100:
            poor = person if has < 100 else driver
            return flows.fund(simulation, poor, self.random.randint(500, 5_000))
        amount = self.random.randint(2, has)
        if self.random.random() < 0.4:
            return self.beside(person, amount)
        kind = self.random.randrange(7)
        if kind == 0 and self.payments:
            return self.refund()
        match kind:
            case 1:
                flow, payment_id = flows.pay(simulation, person, amount)
                self.paying = [(person, payment_id, amount)]
                return flow
            case 2:
                return flows.settle_held(simulation, person, driver, amount)
            case 3:
                return flows.two_phases(simulation, person, amount, self.random.randint(0, amount))
            case 4:
                return flows.expire(simulation, person, amount)
            case 5:
                return flows.settle(simulation, person, driver, driver_has, PaymentMethod.CASH)
        return flows.settle(simulation, person, driver, amount)

    def beside(self, person: str, amount: int) -> Flow:
        """Return a deposit or a withdrawal."""
        simulation = self.simulation
        match self.random.randrange(7):
            case 0:
                return withdrawals.withdraw_raced(simulation, person, amount)
            case 1:
                return withdrawals.withdraw_rejected(simulation, person, amount)
            case 2 | 3:
                destinations = (*withdrawals.PAYING, Behaviour.REFUSES)
                return withdrawals.withdraw(
                    simulation, person, amount, self.random.choice(destinations)
                )
            case 4 if self.deposits:
                return deposits.charge_back(self.deposits.pop())
        gateway = self.random.choice(list(GatewayName))
        paid = deposits.paid_by(simulation, person, self.random.randint(1_000, 9_000), gateway)
        if gateway is not GatewayName.PAYHERE:
            return self.random.choice((deposits.deposit, deposits.deposit_late))(paid)
        kind = self.random.randrange(4)
        if kind == 0:
            return deposits.charge_back_first(paid)
        if kind == 1:
            return deposits.deposit_raced(paid)
        self.depositing = [paid]
        return (deposits.deposit if kind == 2 else deposits.deposit_late)(paid)

    def refund(self) -> Flow:
        person, payment_id, left = self.payments.pop()
        back = self.random.randint(1, left)
        return flows.refund(self.simulation, person, payment_id, back)
