"""RPC in and out: one method per RPC, which converts and calls one operation.

Policy and errors are the interceptor's.
"""

from typing import TYPE_CHECKING, Any

from google.api.httpbody_pb2 import HttpBody

from services.identity import convert
from services.identity.domain import ApiKeyId, RequestId, TenantId, UserId
from services.identity.operations.accounts import Accounts
from services.identity.operations.administration import Administration
from services.identity.operations.api_keys import ApiKeys
from services.identity.operations.sessions import Sessions
from services.identity.signing import SigningKeys
from services.shared.rpc.caller import current_caller
from wayfare.identity.v1 import identity_service_pb2 as pb
from wayfare.identity.v1.api_key_pb2 import ApiKey
from wayfare.identity.v1.identity_service_pb2_grpc import IdentityServiceServicer
from wayfare.identity.v1.session_pb2 import Session
from wayfare.identity.v1.user_pb2 import User

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]


class IdentityServicer(IdentityServiceServicer):
    """Answers IdentityService."""

    def __init__(
        self,
        *,
        accounts: Accounts,
        sessions: Sessions,
        administration: Administration,
        api_keys: ApiKeys,
        keys: SigningKeys,
    ) -> None:
        """Take the operations."""
        self._accounts = accounts
        self._sessions = sessions
        self._administration = administration
        self._api_keys = api_keys
        self._jwks = keys.jwks()

    async def CheckPhone(
        self, request: pb.CheckPhoneRequest, context: "Context"
    ) -> pb.CheckPhoneResponse:
        """Say whether a phone has an account."""
        tenant_id = TenantId(request.tenant_id.lower())
        registered = await self._accounts.check_phone(tenant_id, request.phone)
        return pb.CheckPhoneResponse(registered=registered)

    async def SignUp(self, request: pb.SignUpRequest, context: "Context") -> Session:
        """Make an account."""
        return convert.session_message(await self._accounts.sign_up(convert.sign_up_of(request)))

    async def LogIn(self, request: pb.LogInRequest, context: "Context") -> Session:
        """Open a session."""
        command = convert.log_in_of(request, ip_address=current_caller().ip_address)
        return convert.session_message(await self._sessions.log_in(command))

    async def RefreshSession(
        self, request: pb.RefreshSessionRequest, context: "Context"
    ) -> Session:
        """Replace the tokens of a session."""
        request_id = RequestId(request.request_id.lower())
        return convert.session_message(
            await self._sessions.refresh(request.refresh_token, request_id)
        )

    async def LogOut(self, request: pb.LogOutRequest, context: "Context") -> pb.LogOutResponse:
        """End sessions of the caller."""
        actor = convert.actor_of(current_caller())
        ended = await self._sessions.log_out(actor, all_sessions=request.all_sessions)
        return pb.LogOutResponse(ended_session_count=ended)

    async def GetMe(self, request: pb.GetMeRequest, context: "Context") -> User:
        """Get the caller's account."""
        return convert.user_message(await self._accounts.get_me(convert.actor_of(current_caller())))

    async def ApproveDriver(self, request: pb.ApproveDriverRequest, context: "Context") -> User:
        """Let a driver drive."""
        user = await self._administration.approve_driver(
            convert.actor_of(current_caller()),
            UserId(request.user_id.lower()),
            request_id=convert.request_id_of(request.request_id),
        )
        return convert.user_message(user)

    async def ListUsers(
        self, request: pb.ListUsersRequest, context: "Context"
    ) -> pb.ListUsersResponse:
        """List the tenant's accounts."""
        page = await self._administration.list_users(
            convert.actor_of(current_caller()), convert.user_query_of(request)
        )
        return pb.ListUsersResponse(
            users=map(convert.user_message, page.users), next_page_token=page.next_page_token
        )

    async def UpdateUser(self, request: pb.UpdateUserRequest, context: "Context") -> User:
        """Change an account."""
        user = await self._administration.update_user(
            convert.actor_of(current_caller()),
            UserId(request.user.user_id.lower()),
            change=convert.user_change_of(request),
            request_id=convert.request_id_of(request.request_id),
        )
        return convert.user_message(user)

    async def CreateApiKey(
        self, request: pb.CreateApiKeyRequest, context: "Context"
    ) -> pb.CreateApiKeyResponse:
        """Make an API key."""
        api_key, text = await self._api_keys.create(
            convert.actor_of(current_caller()), convert.new_api_key_of(request)
        )
        return pb.CreateApiKeyResponse(api_key=convert.api_key_message(api_key), key=text)

    async def ListApiKeys(
        self, request: pb.ListApiKeysRequest, context: "Context"
    ) -> pb.ListApiKeysResponse:
        """List the tenant's API keys."""
        page = await self._api_keys.list_api_keys(
            convert.actor_of(current_caller()),
            include_inactive=request.include_inactive,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb.ListApiKeysResponse(
            api_keys=map(convert.api_key_message, page.api_keys),
            next_page_token=page.next_page_token,
        )

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, context: "Context") -> ApiKey:
        """End an API key."""
        api_key = await self._api_keys.revoke(
            convert.actor_of(current_caller()),
            ApiKeyId(request.key_id.lower()),
            request_id=convert.request_id_of(request.request_id),
        )
        return convert.api_key_message(api_key)

    async def VerifyApiKey(
        self, request: pb.VerifyApiKeyRequest, context: "Context"
    ) -> pb.VerifyApiKeyResponse:
        """Say for another service whether a key is good."""
        api_key = await self._api_keys.verify(request.key, use_count=request.use_count)
        return convert.verified_key_message(api_key)

    async def GetJwks(self, request: pb.GetJwksRequest, context: "Context") -> HttpBody:
        """Get the public keys of access tokens."""
        return HttpBody(content_type="application/json", data=self._jwks)
