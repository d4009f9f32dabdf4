"""`wayfare scan`: a conductor's scanner in the terminal, which needs no network to verify."""

import asyncio
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Annotated

import grpc
import typer
from rich.markup import escape

from services.stack.command.console import console
from services.stack.command.session import EdgeOption, edge_of
from services.stack.errors import StackError
from services.stack.home import Home
from services.stack.scanner_file import ScannerFile
from services.stack.session_file import SessionFile
from wayfare.booking.v1 import booking_service_pb2 as pb
from wayfare.booking.v1 import manifest_pb2, ticket_pb2
from wayfare_client import WayfareClient, WayfareError
from wayfare_client.tickets import TicketReason, TicketVerdict

_REPORT_MOST = 500
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_STOP = re.compile(r"stop (\d{1,2})")
_ADVICE = {
    TicketReason.MALFORMED: "this is no ticket",
    TicketReason.KEY_UNKNOWN: "of another operator, or this phone's keys are old",
    TicketReason.SIGNATURE_INVALID: "forged, or changed after it was signed",
    TicketReason.OTHER_TRIP: "a good ticket, for another trip",
    TicketReason.OTHER_LEG: "a good ticket, but not at this stop",
    TicketReason.REVOKED: "its booking was cancelled or changed",
    TicketReason.ALREADY_USED: "somebody got on with it before",
}


def scan(
    trip_id: Annotated[str, typer.Argument(metavar="TRIP", help="Id of the trip you are on.")],
    *,
    stop: Annotated[
        int, typer.Option(min=0, max=63, help="Where the bus is: 0 is the trip's first stop.")
    ] = 0,
    check: Annotated[
        bool, typer.Option("--check", help="Look only, as an inspector does; nobody gets on.")
    ] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Call nobody; what is scanned is reported later.")
    ] = False,
    device: Annotated[str, typer.Option(help="Name of this scanner.")] = "terminal",
    edge: EdgeOption = "",
) -> None:
    """Scan tickets from standard input, a code a line, and report them at the end.

    Begins by fetching the operator's public keys and the trip's revocations; each verdict is then
    made here, without a network. `stop 2` on a line of its own says that the bus is at stop 2. What
    could not be reported is kept, and reported the next time. Needs `wayfare login` as the trip's
    conductor or driver, or as staff.

    Example: wayfare scan 0198c0de-0000-7000-8000-000000000001 --stop 1
    """
    home = Home()
    trip_id = trip_id.lower()
    if not _UUID.fullmatch(trip_id):
        raise StackError(f"{trip_id} is no id of a trip: `wayfare scan --help` shows one.")
    file = ScannerFile(home.scans / f"{trip_id}.json", trip_id)
    kind = ticket_pb2.SCAN_KIND_CHECK if check else ticket_pb2.SCAN_KIND_BOARD
    if offline:
        if not file.is_prepared:
            raise StackError("This scanner has no keys yet: run it once without --offline.")
        _scan_lines(file, sys.stdin, stop=stop, kind=kind, names={})
        console.print(f"{len(file.scanner.pending)} scans wait for a network.")
        return
    tenant_id = SessionFile(home).require().user.tenant_id
    edge = edge_of(home, edge)
    line = _Line(home, edge, tenant_id, file)
    try:
        names = asyncio.run(line.prepare())
    except WayfareError as error:
        if error.code is not grpc.StatusCode.UNAVAILABLE or not file.is_prepared:
            raise
        console.print("[yellow]![/] no network: going on with what was fetched before")
        names = {}
    _scan_lines(file, sys.stdin, stop=stop, kind=kind, names=names)
    try:
        asyncio.run(line.report(device))
    except WayfareError as error:
        if error.code is not grpc.StatusCode.UNAVAILABLE:
            raise
        console.print(f"[yellow]![/] no network: {len(file.scanner.pending)} scans wait for it")


def _scan_lines(
    file: ScannerFile,
    lines: Iterable[str],
    *,
    stop: int,
    kind: ticket_pb2.ScanKind.ValueType,
    names: dict[bytes, str],
) -> None:
    for line in _prompted(lines):
        moved = _STOP.fullmatch(line)
        if moved:
            stop = int(moved[1])
            console.print(f"[dim]the bus is at stop {stop}[/]")
            continue
        verdict = file.scanner.scan(line, stop_index=stop, kind=kind)
        file.save()
        console.print(_told(verdict, names), soft_wrap=True)


def _prompted(lines: Iterable[str]) -> Iterator[str]:
    if sys.stdin.isatty():
        console.print("[dim]Scan or paste codes; Ctrl-D ends and reports.[/]")
    # A reader's lines may end in spaces, which are digits of base 45: only the line end goes.
    for line in lines:
        if text := line.rstrip("\r\n"):
            yield text


def _told(verdict: TicketVerdict, names: dict[bytes, str]) -> str:
    content = verdict.content
    who = ""
    if content is not None:
        name = names.get(content.passenger_key, "")
        who = f" seat {escape(content.seat_number)}" + (f"  {escape(name)}" if name else "")
    if verdict.reason is not None:
        return f"[bold red]✗[/]{who}  {_ADVICE[verdict.reason]} ({verdict.reason})"
    cash = "  [yellow]cash is due[/]" if content is not None and content.cash_due else ""
    return f"[bold green]✓[/]{who}{cash}"


class _Line:
    """Calls BookingService before and after the scans."""

    def __init__(self, home: Home, edge: str, tenant_id: str, file: ScannerFile) -> None:
        """Call `edge` as the person of the session file."""
        self._home = home
        self._edge = edge
        self._tenant_id = tenant_id
        self._file = file

    async def prepare(self) -> dict[bytes, str]:
        """Fetch keys and revocations; return names by passenger key, which are not kept."""
        trip_id = self._file.scanner.trip_id
        async with self._client() as client:
            keys = await _all_keys(client)
            self._file.learn_keys(keys)
            while True:
                page = await client.booking.ListTicketRevocations(
                    pb.ListTicketRevocationsRequest(
                        trip_id=trip_id, sync_token=self._file.sync_token
                    )
                )
                self._file.learn_revocations(list(page.ticket_revocations), page.sync_token)
                if not page.next_page_token:
                    break
            entries = await _all_entries(client, trip_id)
        self._file.save()
        console.print(
            f"[green]✓[/] {len(keys)} keys, {len(self._file.scanner.revoked)} revoked tickets,"
            f" {len(entries)} passengers"
        )
        return {entry.passenger_key: entry.full_name for entry in entries}

    async def report(self, device: str) -> None:
        """Report the scans that wait, and say which verdicts were changed."""
        scanner = self._file.scanner
        told = 0
        async with self._client() as client:
            while batch := scanner.pending[:_REPORT_MOST]:
                answer = await client.booking.ReportScans(
                    pb.ReportScansRequest(trip_id=scanner.trip_id, scans=batch, device_id=device)
                )
                scanner.reported(answer.results)
                self._file.save()
                told += len(batch)
                for mine, result in zip(batch, answer.results, strict=True):
                    _print_change(mine, result)
                for result in answer.overturned_results:
                    console.print(
                        f"[yellow]![/] seat {escape(result.seat_number)}: another phone's scan"
                        " was later than one of these and does not count any more"
                    )
                counts = answer.boarding_counts
                console.print(
                    f"{told} scans reported;"
                    f" {counts.boarded_count} of {counts.expected_count} on board"
                )

    def _client(self) -> WayfareClient:
        return WayfareClient(self._edge, tenant_id=self._tenant_id, store=SessionFile(self._home))


def _print_change(mine: ticket_pb2.Scan, result: ticket_pb2.ScanResult) -> None:
    seat = f"seat {escape(result.seat_number)}" if result.seat_number else "a code"
    if result.HasField("cash_due"):
        money = result.cash_due
        amount = money.units + money.nanos / 1e9
        console.print(f"[yellow]![/] {seat}: {amount:.2f} {money.currency_code} taken in cash")
    if result.accepted == mine.accepted_offline:
        return
    if result.accepted:
        console.print(f"[yellow]![/] {seat} was turned away here, and would have been good")
    else:
        console.print(f"[bold red]![/] {seat} was let on here, and should not: {result.reason}")


async def _all_keys(client: WayfareClient) -> list[ticket_pb2.TicketKey]:
    keys: list[ticket_pb2.TicketKey] = []
    request = pb.ListTicketKeysRequest()
    while True:
        page = await client.booking.ListTicketKeys(request)
        keys += page.ticket_keys
        request.page_token = page.next_page_token
        if not request.page_token:
            return keys


async def _all_entries(client: WayfareClient, trip_id: str) -> list[manifest_pb2.ManifestEntry]:
    entries: list[manifest_pb2.ManifestEntry] = []
    request = pb.GetManifestRequest(trip_id=trip_id)
    while True:
        page = await client.booking.GetManifest(request)
        entries += page.entries
        request.page_token = page.next_page_token
        if not request.page_token:
            return entries
