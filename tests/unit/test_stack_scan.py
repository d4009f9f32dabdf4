"""A conductor's scanner in the terminal: what it keeps, and what it says without a network."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from typer.testing import CliRunner

from services.stack.command import application
from services.stack.home import Home
from services.stack.scanner_file import ScannerFile
from wayfare.booking.v1 import ticket_pb2

pytestmark = pytest.mark.unit
GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "golden" / "tickets.json").read_text()
)
TRIP = GOLDEN["trip_id"]


def _keys() -> list[ticket_pb2.TicketKey]:
    return [
        ticket_pb2.TicketKey(
            key_id=key["key_id"],
            public_key=bytes.fromhex(key["public_key"]),
            sign_start_time=Timestamp(seconds=key["sign_start"]),
            sign_end_time=Timestamp(seconds=key["sign_end"]) if key["sign_end"] else None,
        )
        for key in GOLDEN["keys"]
    ]


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Return a home with a scanner that has fetched keys and revocations."""
    file = ScannerFile(Home(tmp_path).scans / f"{TRIP}.json", TRIP)
    file.learn_keys(_keys())
    revoked = [ticket_pb2.TicketRevocation(ticket_id=one) for one in GOLDEN["revoked"]]
    file.learn_revocations(revoked, "token-1")
    file.save()
    return tmp_path


def test_what_a_scanner_knows_survives_a_restart(prepared: Path) -> None:
    path = Home(prepared).scans / f"{TRIP}.json"
    good = GOLDEN["issued"]["qr_text"]
    first = ScannerFile(path, TRIP)
    assert first.scanner.scan(good, stop_index=1).accepted
    first.save()

    second = ScannerFile(path, TRIP)

    assert second.scanner.scan(good, stop_index=1).reason == "TICKET_ALREADY_USED"
    assert second.sync_token == "token-1"
    assert second.scanner.pending[0] == first.scanner.pending[0]
    assert path.stat().st_mode & 0o077 == 0


def test_a_scanner_without_a_network_says_what_each_code_is_worth(prepared: Path) -> None:
    cases = {case["name"]: case for case in GOLDEN["cases"]}
    lines = [
        "stop 1",
        cases["good where it begins"]["text"],
        cases["of another trip"]["text"],
        cases["the seat was changed"]["text"],
        cases["revoked"]["text"],
        "x" * 300,
    ]

    answer = CliRunner(env={"WAYFARE_HOME": str(prepared)}).invoke(
        application, ["scan", TRIP, "--offline"], input="\n".join(lines) + "\n\n"
    )

    assert answer.exit_code == 0, answer.output
    told = answer.output.splitlines()
    assert "✓ seat 12A" in told[1]
    assert [line.rpartition("(")[2] for line in told[2:6]] == [
        "TICKET_OTHER_TRIP)",
        "TICKET_SIGNATURE_INVALID)",
        "TICKET_REVOKED)",
        "TICKET_MALFORMED)",
    ]
    assert "5 scans wait for a network." in told[6]
    pending = ScannerFile(Home(prepared).scans / f"{TRIP}.json", TRIP).scanner.pending
    assert [scan.accepted_offline for scan in pending] == [True, False, False, False, False]
    assert max(len(scan.ticket) for scan in pending) == 256


def test_an_inspector_uses_no_ticket(prepared: Path) -> None:
    line = GOLDEN["issued"]["token"] + "\n"
    runner = CliRunner(env={"WAYFARE_HOME": str(prepared)})
    arguments = ["scan", TRIP, "--offline", "--check", "--stop", "2"]

    answers = [runner.invoke(application, arguments, input=line).output for _ in range(2)]

    assert all("✓ seat 12A" in answer for answer in answers)
