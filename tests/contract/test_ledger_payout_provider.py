"""What every payout provider does: the bridge over HTTP, and the one of tests of many steps."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from services.ledger.domain.withdrawals import Withdrawal
from services.ledger.payout_gateway import DemoPayoutProvider, HttpPayoutProvider
from services.ledger.withdrawal_ports import (
    PayoutAnswer,
    PayoutProvider,
    PayoutStatus,
    PayoutUncertainError,
)
from tests.support.location_values import TENANT, new_id
from tests.support.payout_bridge import (
    SECRET,
    Behaviour,
    BookProvider,
    PayoutBook,
    PayoutBridge,
    running_bridge,
)

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 26, tzinfo=UTC)
Provider = tuple[PayoutProvider, PayoutBook]


def withdrawal(destination: str) -> Withdrawal:
    return Withdrawal(
        withdrawal_id=new_id(),
        tenant_id=TENANT,
        user_id=new_id(),
        currency_code="EGP",
        amount_minor=3_000,
        payout_destination=destination,
        transfer_id=new_id(),
        body_hash=bytes(16),
        create_time=NOW,
        update_time=NOW,
    )


def over_http(bridge: PayoutBridge, *, secret: str = SECRET, path: str = "") -> HttpPayoutProvider:
    return HttpPayoutProvider(url=bridge.url + path, secret=secret, timeout_seconds=0.4)


@pytest.fixture(params=["http", "book"])
async def provider(request: pytest.FixtureRequest) -> AsyncIterator[Provider]:
    if request.param == "book":
        book = PayoutBook()
        yield BookProvider(book), book
        return
    with running_bridge() as bridge:
        async with over_http(bridge) as http:
            yield http, bridge.book


async def test_the_same_payout_is_paid_once(provider: Provider) -> None:
    payouts, book = provider
    wanted = withdrawal(Behaviour.PAYS)

    answers = [await payouts.create(wanted) for _ in range(3)]

    assert answers == [PayoutAnswer(status=PayoutStatus.PAID, payout_id="po-0")] * 3
    assert await payouts.find(wanted) == answers[0]
    assert book.money_moves == {wanted.withdrawal_id: 1}


async def test_a_key_with_another_body_is_not_taken_for_an_answer(provider: Provider) -> None:
    payouts, book = provider
    wanted = withdrawal(Behaviour.PAYS)
    await payouts.create(wanted)

    with pytest.raises(PayoutUncertainError, match="http_409"):
        await payouts.create(replace(wanted, amount_minor=3_001))

    assert book.money_moves == {wanted.withdrawal_id: 1}


async def test_what_was_never_asked_for_is_unknown(provider: Provider) -> None:
    payouts, _ = provider

    assert await payouts.find(withdrawal(Behaviour.PAYS)) is None


async def test_what_is_paid_later_is_pending_until_then(provider: Provider) -> None:
    payouts, _ = provider
    wanted = withdrawal(Behaviour.PAYS_LATER)

    answers = [await payouts.create(wanted), await payouts.find(wanted), await payouts.find(wanted)]

    assert [one.status for one in answers if one] == ["PENDING", "PENDING", "PAID"]


async def test_a_refusal_says_why(provider: Provider) -> None:
    payouts, book = provider
    wanted = withdrawal(Behaviour.REFUSES)

    answer = await payouts.create(wanted)

    assert (answer.status, answer.reason) == (PayoutStatus.REFUSED, "the account is closed")
    assert await payouts.find(wanted) == answer
    assert not book.money_moves


@pytest.mark.parametrize(
    ("behaviour", "known"),
    [
        (Behaviour.ANSWERS_LATE, True),
        (Behaviour.DROPS_AFTER_ACCEPTING, True),
        (Behaviour.DROPS_BEFORE_ACCEPTING, False),
        (Behaviour.BREAKS_ONCE, False),
    ],
)
async def test_no_answer_is_uncertain_until_it_is_asked_for(
    provider: Provider, behaviour: Behaviour, known: bool
) -> None:
    payouts, book = provider
    wanted = withdrawal(behaviour)

    with pytest.raises(PayoutUncertainError):
        await payouts.create(wanted)
    found = await payouts.find(wanted)
    assert (found is not None) == known
    again = await payouts.create(wanted)

    assert again.status is PayoutStatus.PAID
    assert book.money_moves == {wanted.withdrawal_id: 1}


async def test_an_answer_about_another_amount_is_uncertain(provider: Provider) -> None:
    payouts, _ = provider
    wanted = withdrawal(Behaviour.TELLS_ANOTHER_AMOUNT)

    with pytest.raises(PayoutUncertainError, match="answer_differs"):
        await payouts.create(wanted)
    with pytest.raises(PayoutUncertainError, match="answer_differs"):
        await payouts.find(wanted)


@pytest.mark.parametrize(
    ("values", "why"),
    [({"secret": "another"}, "http_401"), ({"path": "/elsewhere"}, "http_404")],
    ids=["secret", "path"],
)
async def test_a_wrong_setting_is_never_an_unknown_payout(values: dict[str, str], why: str) -> None:
    with running_bridge() as bridge:
        async with over_http(bridge, **values) as http:
            with pytest.raises(PayoutUncertainError) as caught:
                await http.find(withdrawal(Behaviour.PAYS))

    assert caught.value.why == why


async def test_a_bridge_that_is_away_is_uncertain() -> None:
    with running_bridge() as bridge:
        away = over_http(bridge)
    async with away:
        with pytest.raises(PayoutUncertainError, match="unreachable"):
            await away.create(withdrawal(Behaviour.PAYS))


@pytest.mark.parametrize("url", ["http://bank.example", "ftp://127.0.0.1", "bank.example", ""])
async def test_the_secret_is_not_sent_in_the_clear(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        HttpPayoutProvider(url=url, secret=SECRET, timeout_seconds=1)


async def test_the_demonstration_says_the_same_each_time() -> None:
    demo, wanted = DemoPayoutProvider(), withdrawal("bank")

    answer = await demo.create(wanted)

    assert answer.status is PayoutStatus.PAID
    assert answer == await demo.find(wanted)
    assert answer.payout_id != (await demo.create(withdrawal("bank"))).payout_id
