"""Reads a payment gateway's own report from a CSV file. Used by `wayfare ledger reconcile`."""

import csv
import uuid
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from google.type import money_pb2

from services.stack.errors import StackError
from wayfare.ledger.v1 import audit_pb2, deposit_pb2

COLUMNS = ("gateway", "payment_id", "deposit_id", "amount", "currency")
_LINES_MAX = 10_000
_NANOS = 1_000_000_000


def read_gateway_file(path: Path) -> list[audit_pb2.GatewayStatementLine]:
    """Return the lines of a report. Raises StackError with the line that cannot be read."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise StackError(
                f"{path} misses the columns {', '.join(missing)}; it needs {', '.join(COLUMNS)}."
            )
        lines: list[audit_pb2.GatewayStatementLine] = []
        for row in reader:
            if len(lines) == _LINES_MAX:
                raise StackError(f"{path} has more than {_LINES_MAX} lines: split it.")
            try:
                lines.append(_line(row))
            except ValueError as error:
                raise StackError(f"{path}, line {reader.line_num}: {error}") from error
    return lines


def _line(row: Mapping[str, Any]) -> audit_pb2.GatewayStatementLine:
    if any(row[column] is None for column in COLUMNS):
        raise ValueError("a value is missing")
    name = row["gateway"].strip().upper()
    gateways = {one.removeprefix("GATEWAY_") for one in deposit_pb2.Gateway.keys()}  # noqa: SIM118 - an enum, not a dict
    if name not in gateways - {"UNSPECIFIED"}:
        raise ValueError(f"{name!r} is no gateway")
    return audit_pb2.GatewayStatementLine(
        gateway=deposit_pb2.Gateway.Value(f"GATEWAY_{name}"),
        gateway_payment_id=row["payment_id"].strip(),
        deposit_id=str(uuid.UUID(row["deposit_id"].strip())),
        amount=_money(row["amount"].strip(), row["currency"].strip().upper()),
    )


def _money(text: str, currency_code: str) -> money_pb2.Money:
    try:
        nanos = Decimal(text) * _NANOS
        whole = int(nanos)
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is no amount") from error
    if whole != nanos:
        raise ValueError(f"{text!r} has too many decimals")
    sign = -1 if whole < 0 else 1
    units, rest = divmod(abs(whole), _NANOS)
    return money_pb2.Money(currency_code=currency_code, units=sign * units, nanos=sign * rest)
