"""Pure conversion of the daily report between the contract and the domain."""

from datetime import date

from google.type import date_pb2, money_pb2

from services.ledger.report_ports import DailyReport
from services.ledger.withdrawal_errors import DateInvalidError
from services.shared.money import Money, money_to_proto
from wayfare.ledger.v1 import account_pb2, audit_pb2


def date_of(message: date_pb2.Date) -> date:
    """Return the date. Raises DateInvalidError if there is no such day."""
    try:
        return date(message.year, message.month, message.day)
    except ValueError:
        raise DateInvalidError(message.year, message.month, message.day) from None


def report_message(report: DailyReport) -> audit_pb2.DailyReport:
    """Return a report as the contract has it."""
    return audit_pb2.DailyReport(
        date=date_pb2.Date(year=report.day.year, month=report.day.month, day=report.day.day),
        kinds=[
            audit_pb2.DailyKindTotal(
                kind=one.kind,
                transfer_count=one.transfer_count,
                amount=_money(one.amount_minor, one.currency_code),
            )
            for one in report.kinds
        ],
        accounts=[
            audit_pb2.DailyAccountTotal(
                kind=account_pb2.AccountKind.Value(f"ACCOUNT_KIND_{one.kind}"),
                subject=one.subject,
                opening=_money(one.opening_minor, one.currency_code),
                debits=_money(one.debits_minor, one.currency_code),
                credits=_money(one.credits_minor, one.currency_code),
                closing=_money(one.closing_minor, one.currency_code),
            )
            for one in report.accounts
        ],
        preliminary=report.preliminary,
    )


def _money(amount_minor: int, currency_code: str) -> money_pb2.Money:
    return money_to_proto(Money(currency_code=currency_code, amount_minor=amount_minor))
