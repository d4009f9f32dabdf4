"""Wrong passwords per phone, counted in Valkey. Made by app.py.

The operations see ports.LogInAttempts.

Keys, all of one phone in one cluster slot, each with a lifetime of WINDOW_SECONDS from the first
wrong password:
- `identity:attempts:{<phone hash>}:<address>`  wrong passwords from one IP address (IPv6: one /64
  network)
- `identity:attempts:{<phone hash>}`            wrong passwords from everywhere
The phone hash is of tenant and phone, so that no phone number is in Valkey in clear.
"""

import hashlib
import ipaddress

import structlog

from services.identity.domain import Phone, TenantId
from services.identity.errors import TooManyAttemptsError
from services.shared.valkey import VALKEY_AWAY, Valkey

WINDOW_SECONDS = 15 * 60
# The first stops guessing without locking the owner's own devices out; the second bounds guessing
# from a botnet, half of what NIST SP 800-63B allows (100 in a row).
ATTEMPTS_PER_ADDRESS_MAX = 10
ATTEMPTS_MAX = 50

_IPV6_NETWORK_BITS = 64
_log = structlog.get_logger()

# Counts before the password is checked, so that many guesses at once do not pass the limit
# together.
_BEGIN = """
local limits = {tonumber(ARGV[1]), tonumber(ARGV[2])}
for i = 1, 2 do
  if tonumber(redis.call('GET', KEYS[i]) or '0') >= limits[i] then
    return {i, redis.call('PTTL', KEYS[i])}
  end
end
for i = 1, 2 do
  if redis.call('INCR', KEYS[i]) == 1 then redis.call('EXPIRE', KEYS[i], ARGV[3]) end
end
return {0, 0}
"""

_SUCCEED = """
redis.call('DEL', KEYS[1])
if tonumber(redis.call('GET', KEYS[2]) or '0') > 0 then redis.call('DECR', KEYS[2]) end
return 0
"""


class ValkeyLogInAttempts:
    """Counts in Valkey, for all processes together.

    While Valkey is away nothing is counted: the limits per IP address remain, and people can still
    log in.
    """

    def __init__(self, valkey: Valkey) -> None:
        """Take an open client."""
        self._valkey = valkey

    async def begin(self, tenant_id: TenantId, phone: Phone, *, ip_address: str) -> None:
        """Count an attempt as wrong until it succeeds.

        Raises TooManyAttemptsError beyond a limit.
        """
        keys = _keys(tenant_id, phone, ip_address=ip_address)
        limits = (ATTEMPTS_PER_ADDRESS_MAX, ATTEMPTS_MAX)
        try:
            exceeded, wait_milliseconds = await self._valkey.eval(
                _BEGIN, len(keys), *keys, *limits, WINDOW_SECONDS
            )
        except VALKEY_AWAY as error:
            _log.warning("attempts_not_counted", error=type(error).__name__)
            return
        if exceeded:
            raise TooManyAttemptsError(
                attempts_max=limits[exceeded - 1],
                window_seconds=WINDOW_SECONDS,
                retry_after_seconds=max(wait_milliseconds, 1) / 1000,
            )

    async def succeed(self, tenant_id: TenantId, phone: Phone, *, ip_address: str) -> None:
        """Take the attempt back, and forget the wrong ones of this phone from this address."""
        keys = _keys(tenant_id, phone, ip_address=ip_address)
        try:
            await self._valkey.eval(_SUCCEED, len(keys), *keys)
        except VALKEY_AWAY as error:
            _log.warning("attempts_not_counted", error=type(error).__name__)


def _keys(tenant_id: TenantId, phone: Phone, *, ip_address: str) -> tuple[str, str]:
    phone_hash = hashlib.sha256(f"{tenant_id}/{phone}".encode()).hexdigest()[:32]
    everywhere = f"identity:attempts:{{{phone_hash}}}"
    return f"{everywhere}:{_network_of(ip_address)}", everywhere


def _network_of(ip_address: str) -> str:
    try:
        address = ipaddress.ip_address(ip_address)
    except ValueError:
        return "unknown"
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, _IPV6_NETWORK_BITS), strict=False).network_address)
