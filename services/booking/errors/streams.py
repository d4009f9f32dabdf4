"""How a stream ends that the client did not end."""

from services.shared.errors import DomainError, Kind


class DrainedError(DomainError):
    """Says that the server stops and the client has not left its stream by itself."""

    kind = Kind.UNAVAILABLE
    reason = "SERVER_DRAINING"


class StreamTokenExpiredError(DomainError):
    """Says that the access token with which the stream was opened has expired."""

    kind = Kind.UNAUTHENTICATED
    reason = "TOKEN_EXPIRED"
