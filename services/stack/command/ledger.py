"""`wayfare ledger`: walk the chain of seals, reconcile the books, and check a receipt."""

import asyncio
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf import json_format
from google.type import money_pb2
from rich.markup import escape
from rich.table import Table

from services.stack.command.console import console
from services.stack.command.session import EdgeOption, edge_of
from services.stack.errors import StackError
from services.stack.gateway_file import read_gateway_file
from services.stack.home import Home
from services.stack.session_file import SessionFile
from wayfare.ledger.v1 import account_pb2, audit_pb2, ledger_service_pb2, transfer_pb2
from wayfare_client import ReceiptInvalidError, WayfareClient, verify_receipt, verify_seal

ledger = typer.Typer(
    name="ledger",
    help=(
        "Look at the books as an auditor does: are they unchanged, and do they agree?\n\n"
        "Everything is asked for through the edge, as the person of `wayfare login`.\n\n"
        "Example: wayfare login --admin && wayfare ledger verify"
    ),
    no_args_is_help=True,
)


@ledger.command("verify")
def verify(
    *,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", exists=True, help="A seal that was kept before: it must still be there."
        ),
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the newest seal here, as JSON.")
    ] = None,
    since_seal: Annotated[
        bool, typer.Option("--since-seal", help="Walk only what came after that seal.")
    ] = False,
    edge: EdgeOption = "",
) -> None:
    """Walk the chain of seals: hash every transfer and all of its entries again, and compare.

    Finds what was changed, removed or added since it was sealed, changed seals and broken links.
    Whoever could rewrite the whole chain is found by a seal that is kept elsewhere: keep one with
    --keep, and give it with --against. Exit code 1 when anything is wrong.

    Example: wayfare ledger verify --keep seal.json

    Example: wayfare ledger verify --against seal.json --keep seal.json
    """
    if since_seal and against is None:
        raise StackError("--since-seal needs the seal: --against seal.json")
    kept = None if against is None else _read_seal(against)
    faults, walk = asyncio.run(_verify(edge, kept, since_seal=since_seal))
    if faults:
        console.print(_fault_table(faults))
        many = "one fault" if len(faults) == 1 else f"{len(faults)} faults"
        console.print(f"\n[bold red]✗[/] The chain does not hold: {many}.")
        raise typer.Exit(1)
    console.print(f"[green]✓[/] The chain holds: {_counted(walk)}.")
    if walk.HasField("last_seal"):
        seal = walk.last_seal
        console.print(f"  Newest seal: block {seal.block_number}, {_when(seal)}, {_hash(seal)}")
        if keep is not None:
            keep.write_text(json_format.MessageToJson(seal), encoding="utf-8")
            console.print(f"  Kept in {escape(str(keep))}: store it where nobody can change it.")


@ledger.command("reconcile")
def reconcile(
    *,
    gateway_file: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            exists=True,
            help="The gateway's own report: gateway,payment_id,deposit_id,amount,currency.",
        ),
    ] = None,
    latest: Annotated[
        bool, typer.Option("--latest", help="Show the newest report; reconcile nothing.")
    ] = False,
    edge: EdgeOption = "",
) -> None:
    """Check that the books agree, and print the report, which is kept.

    Debits equal credits; balances are the sum of their entries; every completed trip is paid, once;
    what the gateways took is what the ledger has. Exit code 1 when anything does not agree. The
    clock does the same every night: --latest shows that.

    A gateway's report is a CSV file with a line of names. Amounts are as 150.00, and negative when
    they were given back: `KASHIER,TX-1,0198c0de-0000-8000-8000-000000000001,150.00,EGP`

    Example: wayfare ledger reconcile

    Example: wayfare ledger reconcile --gateway-file kashier-november.csv
    """
    lines = [] if gateway_file is None else read_gateway_file(gateway_file)
    report = asyncio.run(_reconcile(edge, lines, latest=latest))
    console.print(
        f"{report.transfer_count} transfers and {report.account_count} accounts until"
        f" {report.until_time.ToDatetime():%Y-%m-%d %H:%M:%S} UTC,"
        f" report {report.reconciliation_id}"
    )
    console.print(_check_table(report))
    if not report.discrepancy_count:
        console.print("\n[green]✓[/] The books agree.")
        return
    console.print(_discrepancy_table(report.discrepancies))
    shown = len(report.discrepancies)
    more = f"; the first {shown} are shown" if report.discrepancy_count > shown else ""
    many = "discrepancies" if report.discrepancy_count > 1 else "discrepancy"
    console.print(f"\n[bold red]✗[/] {report.discrepancy_count} {many}{more}.")
    raise typer.Exit(1)


@ledger.command("receipt")
def receipt(
    transfer_id: Annotated[str, typer.Argument(metavar="TRANSFER", help="Id of the transfer.")],
    *,
    keep: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the receipt here, as JSON.")
    ] = None,
    edge: EdgeOption = "",
) -> None:
    """Fetch the proof that a transfer is in the books, and check it here.

    The check trusts nothing but the seal: compare its hash with a seal that was kept. It is
    `wayfare_client.verify_receipt`, which needs no Wayfare to run. Exit code 1 when it fails. A
    transfer has its receipt a few seconds after it was made.

    Example: wayfare ledger receipt 0198c0de-0000-7000-8000-000000000001

    Example: wayfare ledger receipt 0198c0de-0000-7000-8000-000000000001 --keep receipt.json
    """
    found = asyncio.run(_receipt(edge, transfer_id))
    console.print(_transfer_table(found.transfer))
    seal = found.seal
    if keep is not None:
        keep.write_text(json_format.MessageToJson(found), encoding="utf-8")
    try:
        verify_receipt(found, without_content=not found.leaf_content)
    except ReceiptInvalidError as error:
        console.print(f"\n[bold red]✗[/] The receipt proves nothing: {escape(str(error))}.")
        raise typer.Exit(1) from error
    proven = (
        "This transfer, with all of its postings, is"
        if found.leaf_content
        else "A transfer of which you see your own postings is"
    )
    console.print(
        f"\n[green]✓[/] {proven} number {found.leaf_index + 1} of {seal.transfer_count} in block"
        f" {seal.block_number}, sealed {_when(seal)}.\n  {_hash(seal)}"
    )


async def _verify(
    edge: str, kept: audit_pb2.ChainSeal | None, *, since_seal: bool
) -> tuple[list[audit_pb2.ChainFault], ledger_service_pb2.VerifyChainResponse]:
    """Walk to the end; return the faults and the sum of all parts."""
    total = ledger_service_pb2.VerifyChainResponse()
    faults: list[audit_pb2.ChainFault] = []
    request = ledger_service_pb2.VerifyChainRequest()
    async with _client(edge) as client:
        if kept is not None:
            number = kept.block_number
            request.from_block_number = request.to_block_number = number
            part = await client.ledger.VerifyChain(request)
            if not part.HasField("last_seal"):
                faults.append(_fault(number, "the block of the kept seal is not there"))
            elif part.last_seal.block_hash != kept.block_hash:
                faults.append(_fault(number, "the block is not the one of the kept seal"))
            request.to_block_number = 0
            request.from_block_number = number + 1 if since_seal else 0
            total.last_seal.CopyFrom(kept)
        with console.status("walking the chain") as status:
            while True:
                part = await client.ledger.VerifyChain(request)
                faults += part.faults
                total.block_count += part.block_count
                total.transfer_count += part.transfer_count
                total.unsealed_transfer_count = part.unsealed_transfer_count
                if part.HasField("last_seal"):
                    faults += _seal_faults(part.last_seal)
                    total.last_seal.CopyFrom(part.last_seal)
                status.update(f"walking the chain: {_counted(total)}")
                if not part.next_block_number:
                    return faults, total
                request.from_block_number = part.next_block_number


def _seal_faults(seal: audit_pb2.ChainSeal) -> list[audit_pb2.ChainFault]:
    """Check a seal here, too."""
    try:
        verify_seal(seal)
    except ReceiptInvalidError as error:
        return [_fault(seal.block_number, str(error))]
    return []


async def _reconcile(
    edge: str, lines: Iterable[audit_pb2.GatewayStatementLine], *, latest: bool
) -> audit_pb2.Reconciliation:
    async with _client(edge) as client:
        if latest:
            request = ledger_service_pb2.GetReconciliationRequest(reconciliation_id="latest")
            return await client.ledger.GetReconciliation(request)
        with console.status("reconciling"):
            return await client.ledger.RunReconciliation(
                ledger_service_pb2.RunReconciliationRequest(
                    gateway_lines=lines, request_id=str(uuid.uuid4())
                )
            )


async def _receipt(edge: str, transfer_id: str) -> audit_pb2.Receipt:
    async with _client(edge) as client:
        return await client.ledger.GetReceipt(
            ledger_service_pb2.GetReceiptRequest(transfer_id=transfer_id)
        )


def _client(edge: str) -> WayfareClient:
    home = Home()
    store = SessionFile(home)
    tenant_id = store.require().user.tenant_id
    return WayfareClient(edge_of(home, edge), tenant_id=tenant_id, store=store)


def _read_seal(path: Path) -> audit_pb2.ChainSeal:
    try:
        seal = json_format.Parse(path.read_text(encoding="utf-8"), audit_pb2.ChainSeal())
        verify_seal(seal)
    except (json_format.ParseError, ReceiptInvalidError, UnicodeDecodeError) as error:
        raise StackError(f"{path} is not a kept seal: {error}") from error
    return seal


def _fault(number: int, description: str) -> audit_pb2.ChainFault:
    return audit_pb2.ChainFault(block_number=number, description=description)


def _fault_table(faults: Iterable[audit_pb2.ChainFault]) -> Table:
    table = _table("block", "transfer", "what is wrong")
    for fault in faults:
        table.add_row(str(fault.block_number), fault.transfer_id or "-", escape(fault.description))
    return table


def _check_table(report: audit_pb2.Reconciliation) -> Table:
    table = _table("check", "discrepancies")
    for check in report.checks:
        count = sum(one.check == check for one in report.discrepancies)
        table.add_row(_check_name(check), f"[red]{count}[/]" if count else "[green]none[/]")
    return table


def _discrepancy_table(discrepancies: Iterable[audit_pb2.Discrepancy]) -> Table:
    table = _table("check", "about", "what is wrong", "found", "expected")
    for one in discrepancies:
        found = _amount(one.found) if one.HasField("found") else "-"
        expected = _amount(one.expected) if one.HasField("expected") else "-"
        words = (_check_name(one.check), escape(one.subject), escape(one.description))
        table.add_row(*words, found, expected)
    return table


def _transfer_table(transfer: transfer_pb2.Transfer) -> Table:
    table = _table("account", "from", "to")
    table.title = escape(
        f"{transfer.kind} of {_amount(transfer.amount)}, {transfer.reference or 'no reference'},"
        f" {transfer.create_time.ToDatetime():%Y-%m-%d %H:%M:%S} UTC"
    )
    for posting in transfer.postings:
        kind = account_pb2.AccountKind.Name(posting.account.kind)
        kind = kind.removeprefix("ACCOUNT_KIND_").replace("_", " ").lower()
        name = f"{kind} {posting.account.subject}".strip()
        amount = _amount(posting.amount)
        is_debit = posting.side == transfer_pb2.SIDE_DEBIT
        table.add_row(escape(name), *((amount, "") if is_debit else ("", amount)))
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    numbers = {"block", "discrepancies", "found", "expected", "from", "to"}
    for heading in headings:
        table.add_column(
            heading,
            justify="right" if heading in numbers else "left",
            overflow="fold" if heading in {"transfer", "about"} else "ellipsis",
            no_wrap=heading in numbers,
        )
    return table


def _check_name(check: "audit_pb2.ReconciliationCheck.ValueType") -> str:
    name = audit_pb2.ReconciliationCheck.Name(check).removeprefix("RECONCILIATION_CHECK_")
    return name.replace("_", " ").lower()


def _amount(money: money_pb2.Money) -> str:
    sign = "-" if money.units < 0 or money.nanos < 0 else ""
    decimals = f"{abs(money.nanos):09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{abs(money.units)}.{decimals} {money.currency_code}"


def _counted(walk: ledger_service_pb2.VerifyChainResponse) -> str:
    waiting = walk.unsealed_transfer_count
    rest = f", {waiting} not sealed yet" if waiting else ""
    return f"{walk.block_count} blocks, {walk.transfer_count} transfers{rest}"


def _when(seal: audit_pb2.ChainSeal) -> str:
    return f"{seal.seal_time.ToDatetime():%Y-%m-%d %H:%M:%S} UTC"


def _hash(seal: audit_pb2.ChainSeal) -> str:
    return f"SHA-256 {seal.block_hash.hex()}"
