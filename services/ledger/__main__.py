"""Runs one process of LedgerService: `python -m services.ledger`."""

from services.ledger.app import build
from services.shared.rpc.process import run_process

if __name__ == "__main__":
    run_process(build)
