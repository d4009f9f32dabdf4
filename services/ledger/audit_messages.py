"""Pure conversion of audits between the contract and the domain."""

import hashlib
from collections.abc import Sequence
from datetime import UTC

from google.type import money_pb2

from services.ledger.convert import transfer_message
from services.ledger.domain.chain import ChainFault, Proof, Seal
from services.ledger.domain.reconciliation import (
    DISCREPANCIES_MAX,
    Check,
    Discrepancy,
    ExpectedPayment,
    GatewayLine,
    Report,
)
from services.ledger.domain.transfers import Transfer
from services.ledger.operations.sealing import Walk
from services.ledger.ports import NewEvent
from services.shared.money import Money, money_from_proto, money_to_proto
from services.shared.rpc.timestamps import timestamp_of
from wayfare.event.v1.envelope_pb2 import Envelope
from wayfare.event.v1.trip_completed_pb2 import TripCompleted
from wayfare.ledger.v1 import audit_pb2, deposit_pb2, events_pb2, ledger_service_pb2

_HASH_BYTES = 16
_EVENT_DISCREPANCIES_MAX = 100
_CHECK_NUMBERS = {
    Check(name.removeprefix("RECONCILIATION_CHECK_")): number
    for name, number in audit_pb2.ReconciliationCheck.items()
    if number
}
_CHECKS = {number: check for check, number in _CHECK_NUMBERS.items()}


def checks_of(request: ledger_service_pb2.RunReconciliationRequest) -> list[Check]:
    """Return the checks that are asked for; none for all."""
    return [_CHECKS[number] for number in request.checks]


def gateway_lines_of(
    request: ledger_service_pb2.RunReconciliationRequest,
) -> list[GatewayLine]:
    """Return the gateways' own lines. Raises MoneyInvalidError."""
    lines = []
    for line in request.gateway_lines:
        money = money_from_proto(line.amount)
        lines.append(
            GatewayLine(
                gateway=deposit_pb2.Gateway.Name(line.gateway).removeprefix("GATEWAY_"),
                gateway_payment_id=line.gateway_payment_id,
                deposit_id=line.deposit_id.lower(),
                currency_code=money.currency_code,
                amount_minor=money.amount_minor,
            )
        )
    return lines


def hash_of(request: ledger_service_pb2.RunReconciliationRequest) -> bytes:
    """Return the hash of all that is asked for, but for the request_id."""
    content = ledger_service_pb2.RunReconciliationRequest()
    content.CopyFrom(request)
    content.ClearField("request_id")
    text = content.SerializeToString(deterministic=True)
    return hashlib.blake2b(text, digest_size=_HASH_BYTES).digest()


def report_message(report: Report, *, most: int = DISCREPANCIES_MAX) -> audit_pb2.Reconciliation:
    """Return a report as the contract has it, with at most so many discrepancies."""
    return audit_pb2.Reconciliation(
        reconciliation_id=report.reconciliation_id,
        until_time=timestamp_of(report.until_time),
        create_time=timestamp_of(report.create_time),
        checks=[_CHECK_NUMBERS[check] for check in report.checks],
        transfer_count=report.transfer_count,
        account_count=report.account_count,
        discrepancy_count=report.discrepancy_count,
        discrepancies=map(_discrepancy, report.discrepancies[:most]),
        scheduled=report.scheduled_date is not None,
    )


def event_of(tenant_id: str, report: Report, *, event_id: str) -> NewEvent:
    """Return the event that tells of a report."""
    completed = events_pb2.ReconciliationCompleted(
        reconciliation=report_message(report, most=_EVENT_DISCREPANCIES_MAX)
    )
    envelope = Envelope(
        event_id=event_id,
        tenant_id=tenant_id,
        aggregate_type="reconciliation",
        aggregate_id=report.reconciliation_id,
        aggregate_version=1,
        occur_time=timestamp_of(report.create_time),
    )
    envelope.payload.Pack(completed)
    return NewEvent("reconciliation", report.reconciliation_id, 1, envelope.SerializeToString())


def is_completed_trip(event: Envelope) -> bool:
    """Say whether an event is of a completed trip: most of the others' are not."""
    return event.payload.Is(TripCompleted.DESCRIPTOR)


def expected_payments_of(events: Sequence[Envelope]) -> list[ExpectedPayment]:
    """Return what completed trips are expected to be paid; other events are passed over.

    Raises ValueError or MoneyInvalidError if an event is wrong.
    """
    payments = []
    for event in events:
        completed = TripCompleted()
        if not event.payload.Unpack(completed):
            continue
        money = money_from_proto(completed.amount) if completed.HasField("amount") else None
        if money is not None and money.amount_minor < 0:
            raise ValueError("a completed trip is to be paid less than nothing")
        due = money if money is not None and money.amount_minor else None
        payments.append(
            ExpectedPayment(
                tenant_id=event.tenant_id,
                trip_id=completed.trip_id.lower(),
                passenger_id=completed.passenger_user_id.lower(),
                payment_reference=completed.payment_reference,
                currency_code=due.currency_code if due else "",
                amount_minor=due.amount_minor if due else 0,
                complete_time=completed.complete_time.ToDatetime(UTC),
            )
        )
    return payments


def receipt_message(transfer: Transfer, proof: Proof, content: bytes) -> audit_pb2.Receipt:
    """Return a receipt as the contract has it."""
    return audit_pb2.Receipt(
        transfer=transfer_message(transfer),
        leaf_content=content,
        leaf_hash=proof.leaf_hash,
        leaf_index=proof.leaf_index,
        audit_path=proof.audit_path,
        seal=_seal(proof.seal),
    )


def walk_message(walk: Walk) -> ledger_service_pb2.VerifyChainResponse:
    """Return what a walk found as the contract has it."""
    return ledger_service_pb2.VerifyChainResponse(
        block_count=walk.block_count,
        transfer_count=walk.transfer_count,
        unsealed_transfer_count=walk.unsealed_transfer_count,
        faults=map(_fault, walk.faults),
        last_seal=None if walk.last_seal is None else _seal(walk.last_seal),
        next_block_number=walk.next_block_number,
    )


def _seal(seal: Seal) -> audit_pb2.ChainSeal:
    return audit_pb2.ChainSeal(
        block_number=seal.block_number,
        merkle_root=seal.merkle_root,
        previous_hash=seal.previous_hash,
        block_hash=seal.block_hash,
        transfer_count=seal.transfer_count,
        seal_time=timestamp_of(seal.seal_time),
    )


def _fault(fault: ChainFault) -> audit_pb2.ChainFault:
    return audit_pb2.ChainFault(
        block_number=fault.block_number,
        transfer_id=fault.transfer_id,
        description=fault.description,
    )


def _discrepancy(found: Discrepancy) -> audit_pb2.Discrepancy:
    return audit_pb2.Discrepancy(
        check=_CHECK_NUMBERS[found.check],
        subject=found.subject,
        description=found.description,
        found=_money(found.found_minor, found.currency_code),
        expected=_money(found.expected_minor, found.currency_code),
    )


def _money(amount_minor: int | None, currency_code: str) -> money_pb2.Money | None:
    if amount_minor is None:
        return None
    return money_to_proto(Money(currency_code=currency_code, amount_minor=amount_minor))
