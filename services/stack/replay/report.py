"""The table at the end of a replay."""

from collections import Counter
from collections.abc import Sequence

from rich.table import Table

from services.stack.replay.record import RunRecord, percentile


def result_table(records: Sequence[RunRecord], *, followed: bool) -> Table:
    """Make the table: one row per run, and the total.

    The column `location` has the numbers of the processes: the driver's, then the follower's.
    """
    table = Table(box=None, pad_edge=False, show_footer=True)
    latencies = [seconds for record in records for seconds in record.latencies_seconds]
    refused = sum((record.refused_by_reason for record in records), Counter[str]())
    undecided = sum(record.undecided_count for record in records)
    table.add_column("run", footer=f"{len(records)} runs")
    table.add_column("sent", footer=_total(records, "sent_count"), justify="right")
    table.add_column("refused", footer=_refusals(refused, undecided))
    if followed:
        table.add_column("location", no_wrap=True)
        table.add_column("over")
        delivered = _total(records, "delivered_count")
        table.add_column("delivered", footer=delivered, justify="right")
        table.add_column("lost", footer=_total(records, "lost_count"), justify="right")
        table.add_column("p50", footer=_milliseconds(latencies, 0.50), justify="right")
        table.add_column("p99", footer=_milliseconds(latencies, 0.99), justify="right")
    for record in records:
        table.add_row(*_row(record, followed=followed))
    return table


def _row(record: RunRecord, *, followed: bool) -> list[str]:
    row = [
        record.name,
        str(record.sent_count),
        _refusals(record.refused_by_reason, record.undecided_count),
    ]
    if followed:
        row += [
            f"{_number(record.driver_instance)} → {_number(record.follower_instance)}",
            record.protocol,
            str(record.delivered_count),
            str(record.lost_count),
            _milliseconds(record.latencies_seconds, 0.50),
            _milliseconds(record.latencies_seconds, 0.99),
        ]
    return row


def _number(instance: str) -> str:
    return instance.rpartition("-")[2]


def _refusals(reasons: Counter[str], undecided: int) -> str:
    parts = [f"{count} {reason}" for reason, count in reasons.most_common()]
    if undecided:
        parts.append(f"{undecided} undecided")
    return ", ".join(parts) or "0"


def _milliseconds(latencies: Sequence[float], share: float) -> str:
    value = percentile(latencies, share)
    return "-" if value is None else f"{value * 1000:.1f} ms"


def _total(records: Sequence[RunRecord], name: str) -> str:
    return str(sum(int(getattr(record, name)) for record in records))
