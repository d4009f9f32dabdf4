"""Repeated requests: the same id and body is the same write, another body is refused."""

from services.identity.domain import ClaimedRequest
from services.identity.ports import Transaction
from services.identity.tokens import same
from services.shared.errors import RequestIdReusedError


async def find_repeated(transaction: Transaction, request: ClaimedRequest) -> ClaimedRequest | None:
    """Return the earlier write that the request repeats, or None; raises RequestIdReusedError."""
    earlier = await transaction.requests.find(request.caller, request.request_id)
    return _checked(earlier, request)


async def claim(transaction: Transaction, request: ClaimedRequest | None) -> ClaimedRequest | None:
    """Remember the write, or return the earlier one that it repeats; raises RequestIdReusedError.

    None is a write without a request id, which repeats nothing.
    """
    if request is None:
        return None
    return _checked(await transaction.requests.claim(request), request)


def _checked(earlier: ClaimedRequest | None, request: ClaimedRequest) -> ClaimedRequest | None:
    if earlier is None:
        return None
    if earlier.method != request.method or not same(earlier.body_hash, request.body_hash):
        raise RequestIdReusedError(request.request_id)
    return earlier
