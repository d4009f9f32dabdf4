"""Splits amounts to the minor unit: commissions, and who gives back how much of a refund. Pure."""

from collections.abc import Sequence

from services.ledger.domain.transfers import Posting

BASIS_POINTS = 10_000


def commission_of(amount_minor: int, basis_points: int) -> int:
    """Return the commission, rounded half up to a minor unit. `basis_points` 0 to 10,000."""
    return (amount_minor * basis_points + BASIS_POINTS // 2) // BASIS_POINTS


def refund_postings(
    postings: Sequence[Posting], *, refunded_minor: int, amount_minor: int
) -> list[Posting]:
    """Return the postings that give back `amount_minor` of a transfer, after `refunded_minor`.

    A refund is the difference between two splits of the total given back, before and after it.
    So parts add up to the minor unit, and the last refund ends at exactly what was paid.
    """
    back = []
    before = _split(postings, refunded_minor)
    after = _split(postings, refunded_minor + amount_minor)
    for posting, was, becomes in zip(postings, before, after, strict=True):
        if becomes != was:
            sign = -1 if posting.amount_minor > 0 else 1
            back.append(posting._replace(amount_minor=sign * (becomes - was)))
    return back


def _split(postings: Sequence[Posting], total_minor: int) -> list[int]:
    """Return how much of `total_minor` falls on each posting, debits and credits by themselves.

    Each takes its share of what the ones before it left, rounded down. Unlike the largest
    remainder, no share of this split shrinks when the total grows (house monotone), and none
    exceeds its posting.
    """
    shares = [0] * len(postings)
    for sign in (1, -1):
        weight = sum(max(0, one.amount_minor * sign) for one in postings)
        left = total_minor
        for index, one in enumerate(postings):
            own = one.amount_minor * sign
            if own > 0:
                shares[index] = left * own // weight
                left -= shares[index]
                weight -= own
    return shares
