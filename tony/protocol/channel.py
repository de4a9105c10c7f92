"""What every end of the wire has in common: options, TLS, and gRPC's errors in our words."""

from __future__ import annotations

import grpc

from tony.errors import AppMasterUnreachable, NotPermitted, ProtocolError, TonyError
from tony.protocol.credentials import SERVER_NAME, Credentials
from tony.protocol.messages import RELEASE_LIMIT_BYTES

_KEEPALIVE = [
    # A peer whose host is gone is noticed without waiting for TCP: a ping each 10 s, answered within 5 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
]

_CLIENT = [
    *_KEEPALIVE,
    ("grpc.ssl_target_name_override", SERVER_NAME),
    ("grpc.max_receive_message_length", RELEASE_LIMIT_BYTES),
    # Reconnection is ours to pace; gRPC's own back-off grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Peers are named by YARN; a proxy of the submitting shell must not come between.
    ("grpc.enable_http_proxy", 0),
]

SERVER_OPTIONS = [
    # No pings from this side: executors beat, and on a saturated machine an answer may take longer than a ping waits.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.max_receive_message_length", 1 << 20),
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 100),
    # A gang says Hello all at once; beyond 1,000 that wait gRPC would begin to cancel them at random.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 30_000),
]


def open_channel(address: str, credentials: Credentials) -> grpc.Channel:
    """A channel with mutual TLS to ``host:port``. Does not block: the connection is made on first use."""
    certificate = credentials.certificate.encode()
    return grpc.secure_channel(
        address,
        grpc.ssl_channel_credentials(certificate, credentials.private_key.encode(), certificate),
        options=_CLIENT,
    )


def server_credentials(credentials: Credentials) -> grpc.ServerCredentials:
    """Accept only peers that hold the application's own certificate."""
    certificate = credentials.certificate.encode()
    return grpc.ssl_server_credentials(
        [(credentials.private_key.encode(), certificate)], certificate, require_client_auth=True
    )


def translated(error: grpc.RpcError, address: str) -> TonyError:
    """gRPC's error as one of ours."""
    code = error.code() if isinstance(error, grpc.Call) else None
    details = (error.details() if isinstance(error, grpc.Call) else "") or ""
    if code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED):
        return NotPermitted(details or "the application master refuses this caller")
    if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED):
        return ProtocolError(details or "the application master refuses this message")
    name = code.name.lower().replace("_", " ") if code else "no answer"
    return AppMasterUnreachable(f"the application master at {address} does not answer ({name})")
