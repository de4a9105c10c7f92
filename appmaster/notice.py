"""How a process in Horovod's elastic mode is told that others are at the door: one small message to its own port.

Horovod speaks pickle there. Nothing is unpickled here: of what the process has told, port and key are read from the
list of its opcodes, and what is said is always the same few bytes, signed with that key.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import pickletools
import struct

_KEY_BYTES = 32
_S = 10.0
_ADDED = 2
"""``HostUpdateResult.added``: after it the state is sent to all, the new ones too."""


def read_door(value: bytes) -> tuple[int, str] | None:
    """Port and key (hex) from what a process has put at ``worker_addresses``; None where it is something else.

    That is, in base64, a pickled ``({interface: [(address, port)]}, key)``.
    """
    port, key = 0, b""
    try:
        for opcode, argument, _ in pickletools.genops(base64.b64decode(value, validate=True)):
            if isinstance(argument, bytes) and len(argument) == _KEY_BYTES:
                key = argument
            elif opcode.name in ("BININT", "BININT2") and isinstance(argument, int) and 0 < argument < 65536:
                port = argument
    except (ValueError, binascii.Error, OverflowError):
        return None
    return (port, key.hex()) if port and key else None


def notice(key: str, timestamp: float) -> bytes:
    """The signed message: that hosts were added at that time."""
    said = b"\x80\x02chorovod.runner.elastic.worker\nHostsUpdatedRequest\n"
    said += b"G" + struct.pack(">d", timestamp) + b"K" + bytes([_ADDED]) + b"\x86R."
    return hmac.new(bytes.fromhex(key), said, hashlib.sha256).digest() + struct.pack("i", len(said)) + said


async def tell(address: str, port: int, key: str, timestamp: float) -> None:
    """Say it. Raises OSError or asyncio.TimeoutError when it is not taken."""
    _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), _S)
    try:
        writer.write(notice(key, timestamp))
        await asyncio.wait_for(writer.drain(), _S)
        writer.write_eof()
    finally:
        writer.close()
        await asyncio.wait_for(writer.wait_closed(), _S)
