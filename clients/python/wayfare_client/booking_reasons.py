"""One error class per reason of BookingService; `reasons` holds them all."""

from wayfare_client.errors import WayfareError


class SeatHeldError(WayfareError, reason="SEAT_HELD"):
    """Says that somebody else holds a seat on one of the legs; see metadata `seat_numbers`."""


class SeatBookedError(WayfareError, reason="SEAT_BOOKED"):
    """Says that a seat is sold on one of the legs; see metadata `seat_numbers`."""


class SeatBlockedError(WayfareError, reason="SEAT_BLOCKED"):
    """Says that a seat is not sold to anybody on one of the legs."""


class SeatUnknownError(WayfareError, reason="SEAT_UNKNOWN"):
    """Says that the vehicle has no such seat."""


class SeatsNotAvailableError(WayfareError, reason="SEATS_NOT_AVAILABLE"):
    """Says that fewer seats are free than were asked for; see metadata `free_seats`."""


class TooManySeatsError(WayfareError, reason="TOO_MANY_SEATS"):
    """Says that the user would hold more seats on the trip than one may."""


class TooManyHoldsError(WayfareError, reason="TOO_MANY_HOLDS"):
    """Says that the user has as many holds as one may have at once."""


class HoldExpiredError(WayfareError, reason="HOLD_EXPIRED"):
    """Says that the hold has run out."""


class HoldNotYoursError(WayfareError, reason="HOLD_NOT_YOURS"):
    """Says that the hold is another user's, or there is none."""


class HoldNotActiveError(WayfareError, reason="HOLD_NOT_ACTIVE"):
    """Says that the hold was released, replaced, is being paid or became a booking."""


class HoldExtensionsUsedError(WayfareError, reason="HOLD_EXTENSIONS_USED"):
    """Says that the hold was extended as often as it may be."""


class TripUnknownError(WayfareError, reason="TRIP_UNKNOWN"):
    """Says that the operator has no such trip."""


class TripNotOnSaleError(WayfareError, reason="TRIP_NOT_ON_SALE"):
    """Says that seats of the trip are not sold yet, or no longer at this stop."""


class TripDepartedError(WayfareError, reason="TRIP_DEPARTED"):
    """Says that the trip has left the passenger's stop, or is over."""


class TripCancelledError(WayfareError, reason="TRIP_CANCELLED"):
    """Says that the trip does not run."""


class TripStopsFixedError(WayfareError, reason="TRIP_STOPS_FIXED"):
    """Says that a change would alter which stops the trip has."""


class TripInvalidError(WayfareError, reason="TRIP_INVALID"):
    """Says that the parts of the trip do not fit together; see `field_violations`."""


class StopNotOnTripError(WayfareError, reason="STOP_NOT_ON_TRIP"):
    """Says that the trip does not lead from the one stop to the other."""


class SeatLayoutUnknownError(WayfareError, reason="SEAT_LAYOUT_UNKNOWN"):
    """Says that the operator has no such seat layout."""


class SeatLayoutInvalidError(WayfareError, reason="SEAT_LAYOUT_INVALID"):
    """Says that the parts of the layout do not fit together; see `field_violations`."""


class SearchTooWideError(WayfareError, reason="SEARCH_TOO_WIDE"):
    """Says that the search covers too many days."""


class PassengersMismatchError(WayfareError, reason="PASSENGERS_MISMATCH"):
    """Says that the passengers are not one for each seat of the hold."""


class PaymentMethodNotAllowedError(WayfareError, reason="PAYMENT_METHOD_NOT_ALLOWED"):
    """Says that the trip cannot be paid like this."""


class PaymentFailedError(WayfareError, reason="PAYMENT_FAILED"):
    """Says that the payment was refused and the seats are free again."""


class BookingNotYoursError(WayfareError, reason="BOOKING_NOT_YOURS"):
    """Says that the booking is another user's, or there is none."""


class BookingNotCancellableError(WayfareError, reason="BOOKING_NOT_CANCELLABLE"):
    """Says that the booking keeps no seats any more, was used, or has begun."""


class CancellationFeeChangedError(WayfareError, reason="CANCELLATION_FEE_CHANGED"):
    """Says that cancelling costs more than the caller agreed to."""


class TicketNotYoursError(WayfareError, reason="TICKET_NOT_YOURS"):
    """Says that the ticket is another user's, or there is none."""


class TicketMalformedError(WayfareError, reason="TICKET_MALFORMED"):
    """Says that the code is no ticket."""


class TicketKeyUnknownError(WayfareError, reason="TICKET_KEY_UNKNOWN"):
    """Says that the key that the ticket names is none of the operator's."""


class TicketSignatureInvalidError(WayfareError, reason="TICKET_SIGNATURE_INVALID"):
    """Says that the ticket was changed after it was signed, or never was."""


class TicketOtherTripError(WayfareError, reason="TICKET_OTHER_TRIP"):
    """Says that the ticket is good, but for another trip."""


class TicketOtherLegError(WayfareError, reason="TICKET_OTHER_LEG"):
    """Says that the ticket is good, but not where the vehicle is now."""


class TicketRevokedError(WayfareError, reason="TICKET_REVOKED"):
    """Says that the ticket's booking was cancelled, or another ticket took its place."""


class TicketAlreadyUsedError(WayfareError, reason="TICKET_ALREADY_USED"):
    """Says that somebody got on with the ticket before."""


class NotTheTripCrewError(WayfareError, reason="NOT_THE_TRIP_CREW"):
    """Says that the caller is not of the crew of the trip."""


class StopIndexUnknownError(WayfareError, reason="STOP_INDEX_UNKNOWN"):
    """Says that the trip has no stop of this index."""


class PassengerNotOnTripError(WayfareError, reason="PASSENGER_NOT_ON_TRIP"):
    """Says that the trip has no such passenger."""


class SeatOverrideNotPossibleError(WayfareError, reason="SEAT_OVERRIDE_NOT_POSSIBLE"):
    """Says that there is nothing to unblock, release or move on the legs."""
