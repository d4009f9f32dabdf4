"""The client of one person or one partner's system. Apps begin here."""

import uuid
from collections.abc import Sequence
from random import Random, SystemRandom
from types import TracebackType
from typing import Self, cast

import grpc
import grpc.aio

from wayfare.booking.v1.booking_service_pb2_grpc import BookingServiceStub
from wayfare.identity.v1 import identity_service_pb2, session_pb2
from wayfare.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from wayfare.ledger.v1.ledger_service_pb2_grpc import LedgerServiceStub
from wayfare.location.v1.location_service_pb2_grpc import LocationServiceStub
from wayfare.policy.v1 import policy_pb2
from wayfare_client.calls import PolicyChannel
from wayfare_client.channel import open_channel
from wayfare_client.clock import Clock, SystemClock
from wayfare_client.driver_listener import DriverListener
from wayfare_client.driver_session import DriverSession
from wayfare_client.pacing import Pacing
from wayfare_client.reconnecting import Reconnector
from wayfare_client.seat_watcher import SeatWatcher
from wayfare_client.settings import ClientSettings
from wayfare_client.tokens import AccessTokens, MemorySessionStore, SessionStore
from wayfare_client.trip_follower import TripFollower

_NO_LISTENER = DriverListener()


class WayfareClient:
    """Calls Wayfare through its edge. An async context manager.

    `identity`, `location`, `booking` and `ledger` are the generated stubs, and do by themselves
    what the contract asks of a client: credentials, deadline, retries by class, typed errors
    (WayfareError). `drive`, `follow_trip` and `watch_seats` look after streams.
    """

    def __init__(
        self,
        edge_address: str,
        *,
        tenant_id: str,
        tls: bool | grpc.ChannelCredentials = False,
        metadata: Sequence[tuple[str, str]] = (),
        api_key: str | None = None,
        store: SessionStore | None = None,
        settings: ClientSettings | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
        channel: grpc.aio.Channel | None = None,
    ) -> None:
        """Make a client; it connects with the first call.

        `store` keeps the log-in session, in memory by default. `channel` shares a connection among
        clients, who then leave it open.
        """
        self.tenant_id = tenant_id
        self._settings = settings or ClientSettings()
        self._clock = clock or SystemClock()
        self._random = random or SystemRandom()
        self._owned = channel is None
        self._channel = channel or open_channel(edge_address, self._settings, tls=tls)
        policy_channel = PolicyChannel(
            self._channel, settings=self._settings, clock=self._clock, random=self._random
        )
        # Made before there are tokens: refreshing needs none.
        self._sessions = IdentityServiceStub(cast("grpc.aio.Channel", policy_channel))
        self.tokens = AccessTokens(
            self._refresh,
            store=store or MemorySessionStore(),
            clock=self._clock,
            settings=self._settings,
            metadata=metadata,
            api_key=api_key,
        )
        policy_channel.tokens = self.tokens
        self.identity = IdentityServiceStub(cast("grpc.aio.Channel", policy_channel))
        self.ledger = LedgerServiceStub(cast("grpc.aio.Channel", policy_channel))
        self.location = LocationServiceStub(cast("grpc.aio.Channel", policy_channel))
        self.booking = BookingServiceStub(cast("grpc.aio.Channel", policy_channel))

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connection."""
        await self.close()

    @property
    def session(self) -> session_pb2.Session | None:
        """Return the log-in session, if there is one."""
        return self.tokens.session

    async def log_in(self, phone: str, password: str) -> session_pb2.Session:
        """Log in and call as that person from now on.

        Raises:
            CredentialsWrongError: the phone or the password is wrong.
        """
        session = await self.identity.LogIn(
            identity_service_pb2.LogInRequest(
                tenant_id=self.tenant_id, phone=phone, password=password, request_id=_new_id()
            )
        )
        self.tokens.use(session)
        return session

    async def sign_up(
        self,
        phone: str,
        password: str,
        *,
        display_name: str,
        role: policy_pb2.Role.ValueType = policy_pb2.ROLE_PASSENGER,
        request_id: str | None = None,
    ) -> session_pb2.Session:
        """Make an account and call as that person from now on. Drivers wait for approval.

        Raises:
            PhoneTakenError: the phone has an account already.
        """
        session = await self.identity.SignUp(
            identity_service_pb2.SignUpRequest(
                tenant_id=self.tenant_id,
                phone=phone,
                password=password,
                display_name=display_name,
                role=role,
                request_id=request_id or _new_id(),
            )
        )
        self.tokens.use(session)
        return session

    async def refresh(self) -> None:
        """Refresh the session now: a driver who was approved gets a token that says so."""
        if self.tokens.session is not None:
            await self.tokens.renew(self.tokens.session.access_token)

    async def log_out(self, *, all_sessions: bool = False) -> None:
        """End the session, or all sessions of the person, and forget the tokens."""
        await self.identity.LogOut(identity_service_pb2.LogOutRequest(all_sessions=all_sessions))
        self.tokens.use(None)

    def drive(
        self,
        vehicle_id: str,
        trip_id: str = "",
        *,
        pacing: Pacing = Pacing.CONFLATE,
        listener: DriverListener = _NO_LISTENER,
    ) -> DriverSession:
        """Make a driver's session for a trip, or for free driving without one.

        Enter it to open it.
        """
        return DriverSession(
            self.location,
            self.tokens,
            vehicle_id=vehicle_id,
            trip_id=trip_id,
            pacing=pacing,
            listener=listener,
            settings=self._settings,
            clock=self._clock,
            reconnector=self._reconnector(),
        )

    def follow_trip(self, trip_id: str, *, resume_token: str = "") -> TripFollower:
        """Make a follower of a trip; `resume_token` goes on where an earlier one ended."""
        return TripFollower(
            self.location,
            self.tokens,
            trip_id=trip_id,
            resume_token=resume_token,
            settings=self._settings,
            reconnector=self._reconnector(),
        )

    def watch_seats(
        self, trip_id: str, *, from_stop_id: str = "", to_stop_id: str = ""
    ) -> SeatWatcher:
        """Make a watcher of a trip's seats; from its first stop to its last if none are named."""
        return SeatWatcher(
            self.booking,
            self.tokens,
            trip_id=trip_id,
            from_stop_id=from_stop_id,
            to_stop_id=to_stop_id,
            settings=self._settings,
            reconnector=self._reconnector(),
        )

    async def close(self) -> None:
        """Close the connection."""
        await self.tokens.close()
        if self._owned:
            await self._channel.close()

    async def _refresh(self, refresh_token: str, request_id: str) -> session_pb2.Session:
        return await self._sessions.RefreshSession(
            identity_service_pb2.RefreshSessionRequest(
                refresh_token=refresh_token, request_id=request_id
            )
        )

    def _reconnector(self) -> Reconnector:
        return Reconnector(
            self.tokens, settings=self._settings, clock=self._clock, random=self._random
        )


def _new_id() -> str:
    return str(uuid.uuid4())
