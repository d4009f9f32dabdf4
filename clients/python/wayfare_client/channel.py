"""Channels to the edge. WayfareClient opens one; a bench or a tool may share one among clients."""

import grpc
import grpc.aio

from wayfare_client.settings import ClientSettings

_LOCAL_PREFIXES = ("127.", "localhost:", "[::1]:", "unix:")


def channel_options(settings: ClientSettings) -> list[tuple[str, int]]:
    """Return the gRPC channel options that the servers expect of a client."""
    return [
        ("grpc.keepalive_time_ms", round(settings.keepalive_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", round(settings.keepalive_timeout_seconds * 1000)),
        ("grpc.keepalive_permit_without_calls", 0),
        # Otherwise keepalive stops after two pings on a stream that is idle.
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        # The client's own backoff decides when to try; the channel only must not be slower than it.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 2000),
        ("grpc.max_reconnect_backoff_ms", 2000),
        # Every client has a connection of its own, as every phone has.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.service_config_disable_resolution", 1),
    ]


def open_channel(
    address: str,
    settings: ClientSettings,
    *,
    tls: bool | grpc.ChannelCredentials = False,
) -> grpc.aio.Channel:
    """Open a channel. `tls` may be True for the system's certificate authorities."""
    options = channel_options(settings)
    if address.startswith(_LOCAL_PREFIXES):
        # No proxy of the environment leads to this machine.
        options.append(("grpc.enable_http_proxy", 0))
    if tls is False:
        return grpc.aio.insecure_channel(address, options=options)
    credentials = grpc.ssl_channel_credentials() if tls is True else tls
    return grpc.aio.secure_channel(address, credentials, options=options)
