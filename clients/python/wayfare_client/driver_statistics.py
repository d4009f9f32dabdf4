"""What became of the messages of a driver session. Read from DriverSession.statistics."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverStatistics:
    """Counts what became of a session's messages.

    sent = accepted + rejected + thinned + pending, whenever it is read. `unheard` are those among
    the accepted whose acknowledgement was lost with its stream: decided, and possibly refused.
    `conflated` were never sent.
    """

    sent_count: int
    accepted_count: int
    unheard_count: int
    rejected_counts: dict[str, int]
    thinned_count: int
    conflated_count: int
    pending_count: int
    resent_count: int
    reconnect_count: int
