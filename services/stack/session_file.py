"""The log-in session of the person at this terminal, kept in the home; `wayfare login` writes it.

A `SessionStore` of the Python client, which saves every refresh, since a refresh token works once.
"""

from google.protobuf import json_format

from services.stack.errors import StackError
from services.stack.home import Home
from services.stack.passwords import write_private_file
from wayfare.identity.v1 import session_pb2


class SessionFile:
    """Keeps one session in a file of mode 0600."""

    def __init__(self, home: Home) -> None:
        """Name the home."""
        self._path = home.session_file

    def load(self) -> session_pb2.Session | None:
        """Return the session, or None when nobody is logged in."""
        if not self._path.exists():
            return None
        text = self._path.read_text(encoding="utf-8")
        return json_format.Parse(text, session_pb2.Session(), ignore_unknown_fields=True)

    def save(self, session: session_pb2.Session | None) -> None:
        """Keep a session, or forget it."""
        if session is None:
            self._path.unlink(missing_ok=True)
        else:
            write_private_file(self._path, json_format.MessageToJson(session).encode())

    def require(self) -> session_pb2.Session:
        """Return the session; raise StackError when nobody is logged in."""
        session = self.load()
        if session is None:
            raise StackError("Nobody is logged in: `wayfare login --admin`, or with --phone.")
        return session
