"""What makes a write safe to repeat."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteRequest:
    """Says who asks for a write, by which method and `request_id`, and the hash of what is asked.

    The same request again finds what it did; another body is refused with RequestIdReusedError.
    """

    tenant_id: str
    caller_id: str
    method: str
    request_id: str
    body_hash: bytes
