"""An auditor at work through Envoy: `wayfare ledger`, and the same calls in JSON."""

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from google.protobuf import json_format
from typer.testing import CliRunner, Result

from services.stack.command import application
from services.stack.home import Home
from services.stack.session_file import SessionFile
from tests.support.e2e_edge import Edge, reasons_of
from tests.support.stack_fixtures import run_to_completion
from wayfare.identity.v1 import session_pb2
from wayfare.ledger.v1 import audit_pb2
from wayfare_client import verify_receipt

pytestmark = pytest.mark.e2e


class Operator:
    """An operator of the test's own, whose administrator is logged in at a terminal."""

    def __init__(self, edge: Edge, folder: Path, web: httpx.Client) -> None:
        self._edge = edge
        self.tenant_id = str(uuid.uuid4())
        self.admin = self._headers("ADMIN")
        self.web = web
        home = Home(folder / "home")
        home.create()
        session = session_pb2.Session(
            access_token=self.admin["authorization"].removeprefix("Bearer "),
            refresh_token="none",
        )
        session.user.tenant_id = self.tenant_id
        session.access_token_expire_time.FromSeconds(int(time.time()) + 800)
        SessionFile(home).save(session)
        self._terminal = CliRunner(env={"WAYFARE_HOME": str(home.path), "COLUMNS": "200"})

    def _headers(self, role: str) -> dict[str, str]:
        token = self._edge.mint.token(role, tenant_id=self.tenant_id)
        return {"authorization": f"Bearer {token}"}

    def wayfare(self, *arguments: str) -> Result:
        """Run `wayfare ledger` as the administrator."""
        return self._terminal.invoke(
            application, ["ledger", *arguments, "--edge", self._edge.stack.edge_address]
        )

    def deposit(self, units: int) -> tuple[str, str]:
        """Let a passenger deposit and the gateway tell of it; return deposit and transfer."""
        passenger = self._headers("PASSENGER")
        body = {
            "gateway": "GATEWAY_KASHIER",
            "amount": {"currencyCode": "EGP", "units": units},
            "requestId": str(uuid.uuid4()),
        }
        made = self.web.post("/v1/deposits", json=body, headers=passenger).json()
        deposit_id = made["deposit"]["depositId"]
        stack = CliRunner(env={"WAYFARE_HOME": str(self._edge.stack.home.path)})
        paid = stack.invoke(application, ["pay", deposit_id, "--tenant", self.tenant_id])
        assert paid.exit_code == 0, paid.output
        kept = self.web.get(f"/v1/deposits/{deposit_id}", headers=passenger).json()
        return deposit_id, kept["transferId"]

    def until_sealed(self, count: int) -> dict[str, Any]:
        """Wait until so many transfers are sealed; return what VerifyChain answers in JSON."""
        walked: dict[str, Any] = {}
        for _ in range(200):
            answer = self.web.get("/v1/chain:verify", headers=self.admin)
            assert answer.status_code == 200, answer.text
            walked = answer.json()
            if walked["transferCount"] == str(count):
                return walked
            time.sleep(0.2)
        raise AssertionError(f"{count} transfers are not sealed: {walked}")

    def tamper(self, statement: str, *values: Any) -> None:
        """Change the books behind the service's back."""

        async def change() -> None:
            connection = await asyncpg.connect(self._edge.stack.postgres.dsn_for("postgres"))
            try:
                await connection.execute("SET session_replication_role = replica")
                assert (await connection.execute(statement, *values)).endswith(" 1")
            finally:
                await connection.close()

        run_to_completion(change())


@pytest.fixture
def operator(edge: Edge, tmp_path: Path) -> Iterator[Operator]:
    with httpx.Client(base_url=edge.url, trust_env=False, timeout=60) as web:
        yield Operator(edge, tmp_path, web)


def test_a_changed_byte_is_found_at_the_terminal(operator: Operator, tmp_path: Path) -> None:
    _, changed = operator.deposit(150)
    _, other = operator.deposit(70)
    operator.until_sealed(2)
    seal = tmp_path / "seal.json"

    holds = operator.wayfare("verify", "--keep", str(seal))
    again = operator.wayfare("verify", "--against", str(seal))
    after = operator.wayfare("verify", "--against", str(seal), "--since-seal")
    operator.tamper(
        "UPDATE ledger.entries SET amount_minor = amount_minor + 1 WHERE transfer_id = $1"
        " AND amount_minor > 0",
        changed,
    )
    broken = operator.wayfare("verify")

    assert holds.exit_code == again.exit_code == after.exit_code == 0, holds.output
    assert "2 transfers" in holds.output
    assert "0 transfers" in after.output
    assert broken.exit_code == 1
    assert changed in broken.output
    assert other not in broken.output
    assert "the transfer or its entries are changed" in broken.output


def test_a_rewritten_chain_is_found_by_the_seal_that_was_kept(
    operator: Operator, tmp_path: Path
) -> None:
    operator.deposit(150)
    operator.until_sealed(1)
    seal = tmp_path / "seal.json"
    assert operator.wayfare("verify", "--keep", str(seal)).exit_code == 0
    operator.tamper("DELETE FROM ledger.chain_leaves WHERE tenant_id = $1", operator.tenant_id)
    operator.tamper("DELETE FROM ledger.chain_blocks WHERE tenant_id = $1", operator.tenant_id)
    operator.until_sealed(1)

    alone = operator.wayfare("verify")
    against = operator.wayfare("verify", "--against", str(seal))
    seal.write_text(seal.read_text().replace('"transferCount": "1"', '"transferCount": "2"'))
    forged = operator.wayfare("verify", "--against", str(seal))

    assert (alone.exit_code, against.exit_code, forged.exit_code) == (0, 1, 1)
    assert "the block is not the one of the kept seal" in against.output
    assert "is not a kept seal" in str(forged.exception)


def test_a_receipt_is_checked_at_the_terminal_and_in_json(
    operator: Operator, tmp_path: Path
) -> None:
    _, transfer_id = operator.deposit(150)
    operator.until_sealed(1)
    path = tmp_path / "receipt.json"

    shown = operator.wayfare("receipt", transfer_id, "--keep", str(path))
    answer = operator.web.get(f"/v1/transfers/{transfer_id}/receipt", headers=operator.admin)
    unknown = operator.web.get(f"/v1/transfers/{uuid.uuid4()}/receipt", headers=operator.admin)
    operator.tamper(
        "UPDATE ledger.transfers SET kind = 'DEPOSIS' WHERE transfer_id = $1", transfer_id
    )
    changed = operator.wayfare("receipt", transfer_id)

    assert shown.exit_code == 0, shown.output
    assert "DEPOSIT of 150.00 EGP" in shown.output
    verify_receipt(json_format.Parse(answer.text, audit_pb2.Receipt()))
    verify_receipt(json_format.Parse(path.read_text(), audit_pb2.Receipt()))
    assert reasons_of(unknown.json()["details"]) == [("TRANSFER_UNKNOWN", "ledger.wayfare")]
    assert changed.exit_code == 1
    assert "proves nothing" in changed.output


def test_books_are_reconciled_at_the_terminal_with_the_gateways_report(
    operator: Operator, tmp_path: Path
) -> None:
    deposit_id, transfer_id = operator.deposit(150)
    payment = operator.web.get(f"/v1/deposits/{deposit_id}", headers=operator.admin).json()
    report = tmp_path / "kashier.csv"
    head = "gateway,payment_id,deposit_id,amount,currency\n"
    line = f"KASHIER,{payment['gatewayPaymentId']},{deposit_id},"

    report.write_text(f"{head}{line}150.00,EGP\n")
    agrees = operator.wayfare("reconcile", "--gateway-file", str(report))
    report.write_text(f"{head}{line}140.00,EGP\n")
    differs = operator.wayfare("reconcile", "--gateway-file", str(report))
    latest = operator.web.get("/v1/reconciliations/latest", headers=operator.admin).json()
    report.write_text(f"{head}{line}1.0.0,EGP\n")
    odd = operator.wayfare("reconcile", "--gateway-file", str(report))
    operator.tamper("DELETE FROM ledger.transfers WHERE transfer_id = $1", transfer_id)
    broken = operator.wayfare("reconcile")

    assert agrees.exit_code == 0, agrees.output
    assert "The books agree" in agrees.output
    assert differs.exit_code == 1
    assert "150.00 EGP" in differs.output
    assert "140.00 EGP" in differs.output
    assert [one["subject"] for one in latest["discrepancies"]] == [f"deposit/{deposit_id}"]
    assert "line 2" in str(odd.exception)
    assert broken.exit_code == 1
    assert "there are entries of a transfer that is not there" in broken.output


def test_only_staff_audits(operator: Operator, edge: Edge) -> None:
    token = edge.mint.token("PASSENGER", tenant_id=operator.tenant_id)
    headers = {"authorization": f"Bearer {token}"}

    answers = [
        operator.web.get("/v1/chain:verify", headers=headers),
        operator.web.get("/v1/reconciliations/latest", headers=headers),
        operator.web.post(
            "/v1/reconciliations:run", json={"requestId": str(uuid.uuid4())}, headers=headers
        ),
    ]

    assert [answer.status_code for answer in answers] == [403, 403, 403]
