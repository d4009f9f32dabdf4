"""Page tokens: where a list goes on, bound to the list and its filters. Pure.

Used by the operations.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from uuid import UUID

from services.identity.errors import PageTokenInvalidError

_FILTER_HASH_CHARACTERS = 16


def encode_page_token(last_id: str, *, filters: Mapping[str, str]) -> str:
    """Return the token of the page after the one that ended with `last_id`."""
    packed = UUID(last_id).bytes + _filter_hash(filters)
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode("ascii")


def decode_page_token(text: str, *, filters: Mapping[str, str]) -> str | None:
    """Return the id after which the page begins, or None for the first page.

    Raises PageTokenInvalidError when the token is not one of this list with these filters.
    """
    if not text:
        return None
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise PageTokenInvalidError from error
    if packed[16:] != _filter_hash(filters):
        raise PageTokenInvalidError
    return str(UUID(bytes=packed[:16]))


def _filter_hash(filters: Mapping[str, str]) -> bytes:
    text = json.dumps(filters, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_FILTER_HASH_CHARACTERS].encode("ascii")
