"""Page tokens: where a list goes on, bound to the list and its filters."""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence

from services.booking.errors.lists import PageTokenInvalidError

_CHECK_BYTES = 8


def write_token(filters: Sequence[str], position: Sequence[str]) -> str:
    """Return the token of the page after `position`; `filters` name the list and its filters."""
    packed = _check_of(filters) + json.dumps(list(position), separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def read_token(text: str, filters: Sequence[str], length: int) -> list[str]:
    """Return the position, of `length` parts. Raises PageTokenInvalidError for another list's."""
    try:
        padded = text + "=" * (-len(text) % 4)
        packed = base64.b64decode(padded, altchars=b"-_", validate=True)
        position: object = json.loads(packed[_CHECK_BYTES:])
    except (binascii.Error, ValueError) as error:
        raise PageTokenInvalidError from error
    is_ours = packed[:_CHECK_BYTES] == _check_of(filters)
    if not is_ours or not isinstance(position, list) or len(position) != length:
        raise PageTokenInvalidError
    return [str(part) for part in position]


def page_size_of(asked: int, *, default: int, most: int) -> int:
    """Return how many a page has at most."""
    return min(asked or default, most)


def _check_of(filters: Sequence[str]) -> bytes:
    words = json.dumps(list(filters)).encode()
    return hashlib.blake2b(words, digest_size=_CHECK_BYTES).digest()
