"""One error class per reason of the contract, so that an app can catch what it means.

A test holds the table against the ErrorReason enums of the protos; a reason that is newer than this
client is a plain WayfareError with its name in `reason`.
"""

from wayfare_client.booking_reasons import *  # noqa: F403  # one table for all services
from wayfare_client.errors import WayfareError

# What any service, or Envoy in front of it, can answer.


class CredentialsMissingError(WayfareError, reason="CREDENTIALS_MISSING"):
    """Says that the call needs an access token or an API key."""


class TokenExpiredError(WayfareError, reason="TOKEN_EXPIRED"):
    """Says that the token has ended, and could not be refreshed."""


class TokenInvalidError(WayfareError, reason="TOKEN_INVALID"):
    """Says that the token or API key is not one of the operator's."""


class AccountPendingError(WayfareError, reason="ACCOUNT_PENDING"):
    """Says that the account waits for approval by an ADMIN."""


class RoleNotAllowedError(WayfareError, reason="ROLE_NOT_ALLOWED"):
    """Says that the caller's role may not call the method."""


class ServiceNotAllowedError(WayfareError, reason="SERVICE_NOT_ALLOWED"):
    """Says that the method is for other services."""


class RateLimitedError(WayfareError, reason="RATE_LIMITED"):
    """Says that the caller called too often; see `retry_after_seconds`."""


class RequestInvalidError(WayfareError, reason="REQUEST_INVALID"):
    """Says that a field breaks a rule; see `field_violations`."""


class MessageMalformedError(WayfareError, reason="MESSAGE_MALFORMED"):
    """Says that the bytes are not a message of the method."""


class MessageTooLargeError(WayfareError, reason="MESSAGE_TOO_LARGE"):
    """Says that the message is larger than the server reads."""


class DeadlineTooShortError(WayfareError, reason="DEADLINE_TOO_SHORT"):
    """Says that the deadline leaves too little time to begin with."""


class OverloadedError(WayfareError, reason="OVERLOADED"):
    """Says that the server has as much work as it can do."""


class DependencyUnavailableError(WayfareError, reason="DEPENDENCY_UNAVAILABLE"):
    """Says that something that the answer needs is away for now."""


class NotImplementedYetError(WayfareError, reason="NOT_IMPLEMENTED_YET"):
    """Says that the server does not serve the method yet."""


class ServerDrainingError(WayfareError, reason="SERVER_DRAINING"):
    """Says that the server is about to stop; another takes the call."""


class ServerInternalError(WayfareError, reason="INTERNAL"):
    """Says that the server failed; metadata `request_id` finds its log line."""


class MethodUnknownError(WayfareError, reason="METHOD_UNKNOWN"):
    """Says that the server has no such method."""


class DeadlinePassedError(WayfareError, reason="DEADLINE_PASSED"):
    """Says that the call took longer than its deadline."""


# IdentityService.


class PhoneTakenError(WayfareError, reason="PHONE_TAKEN"):
    """Says that the phone has an account already."""


class PhoneInvalidError(WayfareError, reason="PHONE_INVALID"):
    """Says that there can be no such phone number."""


class TenantUnknownError(WayfareError, reason="TENANT_UNKNOWN"):
    """Says that there is no operator with this tenant id."""


class CredentialsWrongError(WayfareError, reason="CREDENTIALS_WRONG"):
    """Says that the phone or the password is wrong."""


class TooManyAttemptsError(WayfareError, reason="TOO_MANY_ATTEMPTS"):
    """Says that too many wrong passwords were tried for the phone."""


class SessionRevokedError(WayfareError, reason="SESSION_REVOKED"):
    """Says that the log-in session was ended; log in again."""


class AccountSuspendedError(WayfareError, reason="ACCOUNT_SUSPENDED"):
    """Says that an ADMIN suspended the account."""


class UserUnknownError(WayfareError, reason="USER_UNKNOWN"):
    """Says that the operator has no such account."""


class NotADriverError(WayfareError, reason="NOT_A_DRIVER"):
    """Says that the account is not a driver's."""


class StatusChangeNotAllowedError(WayfareError, reason="STATUS_CHANGE_NOT_ALLOWED"):
    """Says that the account cannot get that status."""


class LastAdminError(WayfareError, reason="LAST_ADMIN"):
    """Says that the operator would be left without an ADMIN."""


class ApiKeyUnknownError(WayfareError, reason="API_KEY_UNKNOWN"):
    """Says that the operator has no such API key."""


class ApiKeyInvalidError(WayfareError, reason="API_KEY_INVALID"):
    """Says that the API key is unknown, revoked or expired."""


class TooManyApiKeysError(WayfareError, reason="TOO_MANY_API_KEYS"):
    """Says that the operator has as many API keys as it may have."""


class RequestIdReusedError(WayfareError, reason="REQUEST_ID_REUSED"):
    """Says that the request_id was used for another request."""


class PageTokenInvalidError(WayfareError, reason="PAGE_TOKEN_INVALID"):
    """Says that the page token is not of this list."""


class ExpireTimePassedError(WayfareError, reason="EXPIRE_TIME_PASSED"):
    """Says that the time at which the key shall expire has passed."""


# LocationService.


class NotTheTripDriverError(WayfareError, reason="NOT_THE_TRIP_DRIVER"):
    """Says that the caller does not drive the trip."""


class NotAFollowerError(WayfareError, reason="NOT_A_FOLLOWER"):
    """Says that the caller may not see the trip or vehicle."""


class TooManyFollowedTripsError(WayfareError, reason="TOO_MANY_FOLLOWED_TRIPS"):
    """Says that the user follows as many trips as one may."""


class PositionTooOldError(WayfareError, reason="POSITION_TOO_OLD"):
    """Says that the position is older than the driver's last."""


class PositionInFutureError(WayfareError, reason="POSITION_IN_FUTURE"):
    """Says that the position is ahead of the server's clock."""


class PositionImplausibleError(WayfareError, reason="POSITION_IMPLAUSIBLE"):
    """Says that no vehicle goes that fast."""


class UpdateTooFrequentError(WayfareError, reason="UPDATE_TOO_FREQUENT"):
    """Says that the driver sends more often than a driver may."""


class TripNotTrackedError(WayfareError, reason="TRIP_NOT_TRACKED"):
    """Says that the trip is not tracked any more."""


class VehicleNotLiveError(WayfareError, reason="VEHICLE_NOT_LIVE"):
    """Says that the vehicle sent no position lately."""


class SessionSupersededError(WayfareError, reason="SESSION_SUPERSEDED"):
    """Says that a newer stream of the same driver took over."""


class HelloExpectedFirstError(WayfareError, reason="HELLO_EXPECTED_FIRST"):
    """Says that a driver stream began without hello."""


class HelloTimeoutError(WayfareError, reason="HELLO_TIMEOUT"):
    """Says that hello did not arrive in time."""


class SeqOutOfOrderError(WayfareError, reason="SEQ_OUT_OF_ORDER"):
    """Says that a message's number is not higher than the last."""


class TripRequiredError(WayfareError, reason="TRIP_REQUIRED"):
    """Says that the message needs a trip, and the session drives freely."""


class VehicleNotOfTripError(WayfareError, reason="VEHICLE_NOT_OF_TRIP"):
    """Says that the vehicle is not the trip's."""


class FollowerTooSlowError(WayfareError, reason="FOLLOWER_TOO_SLOW"):
    """Says that the follower reads more slowly than events arrive."""


class StatusNotAllowedError(WayfareError, reason="STATUS_NOT_ALLOWED"):
    """Says that the trip cannot go to that status."""


class TripOfAnotherTenantError(WayfareError, reason="TRIP_OF_ANOTHER_TENANT"):
    """Says that the trip runs under another tenant."""


class NotYourTenantError(WayfareError, reason="NOT_YOUR_TENANT"):
    """Says that the tenant of the request is not the caller's."""


class GeofenceShapeInvalidError(WayfareError, reason="GEOFENCE_SHAPE_INVALID"):
    """Says that the area of a geofence crosses itself or has no inside."""


class TooManyGeofencesError(WayfareError, reason="TOO_MANY_GEOFENCES"):
    """Says that the tenant has as many geofences as one may."""


class TimetableTripUnknownError(WayfareError, reason="TIMETABLE_TRIP_UNKNOWN"):
    """Says that no imported timetable has the trip on the day."""


class ViewportInvalidError(WayfareError, reason="VIEWPORT_INVALID"):
    """Says that the viewport's corners are swapped or outside the world."""
