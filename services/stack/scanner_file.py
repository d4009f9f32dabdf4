"""What a conductor's scanner keeps of one trip, so that it works without a network and restarts.

Written by `wayfare scan` after each scan. It holds keys, ids and scans, and nobody's name.
"""

import json
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from services.stack.passwords import write_private_file
from wayfare.booking.v1 import ticket_pb2
from wayfare_client.tickets import TripScanner

_M = TypeVar("_M", bound=Message)


class ScannerFile:
    """Keeps one trip's scanner in a file of mode 0600."""

    def __init__(self, path: Path, trip_id: str) -> None:
        """Read the file, if there is one."""
        self._path = path
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.sync_token: str = kept.get("sync_token", "")
        self._keys = [_read(one, ticket_pb2.TicketKey()) for one in kept.get("keys", ())]
        self._revocations = [
            _read(one, ticket_pb2.TicketRevocation()) for one in kept.get("revocations", ())
        ]
        self.scanner = TripScanner(
            trip_id,
            used=kept.get("used", ()),
            pending=[_read(one, ticket_pb2.Scan()) for one in kept.get("scans", ())],
        )
        self.scanner.learn_keys(self._keys)
        self.scanner.learn_revocations(self._revocations)

    @property
    def is_prepared(self) -> bool:
        """Return whether it knows keys, and so can verify."""
        return bool(self._keys)

    def learn_keys(self, keys: list[ticket_pb2.TicketKey]) -> None:
        """Take what ListTicketKeys answered, all of it."""
        self._keys = keys
        self.scanner.learn_keys(keys)

    def learn_revocations(
        self, revocations: list[ticket_pb2.TicketRevocation], sync_token: str
    ) -> None:
        """Take what ListTicketRevocations answered, and where it goes on."""
        self._revocations += revocations
        self.sync_token = sync_token
        self.scanner.learn_revocations(revocations)

    def save(self) -> None:
        """Write what is known."""
        kept = {
            "sync_token": self.sync_token,
            "keys": [json_format.MessageToDict(one) for one in self._keys],
            "revocations": [json_format.MessageToDict(one) for one in self._revocations],
            "used": sorted(self.scanner.used),
            "scans": [json_format.MessageToDict(one) for one in self.scanner.pending],
        }
        write_private_file(self._path, json.dumps(kept).encode())


def _read(content: dict[str, Any], message: _M) -> _M:
    return json_format.ParseDict(content, message, ignore_unknown_fields=True)
