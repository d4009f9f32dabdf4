"""Cuts the bytes of a call's body into gRPC messages. Pure."""

import zlib

from services.shared.rpc.wire.frames import PREFIX_BYTES

_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class MessageFault(Exception):  # noqa: N818 - its name says what it is, and it is caught by it
    """Says that a call's body is no sequence of messages that we read: the call ends so."""

    def __init__(self, code: int, why: str) -> None:
        """Take the number of the gRPC status and what is told."""
        super().__init__(why)
        self.code = code
        self.why = why


class Assembly:
    """Puts together messages that came in pieces, or several at once, or compressed."""

    __slots__ = ("_buffer", "_encoding", "_max_bytes", "_need")

    def __init__(self, max_bytes: int, encoding: str) -> None:
        """Refuse messages of more than `max_bytes`, also once they are unpacked."""
        self._max_bytes = max_bytes
        self._encoding = encoding
        self._buffer = bytearray()
        self._need = PREFIX_BYTES

    @property
    def size(self) -> int:
        """Return how many bytes of an incomplete message there are."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages that are complete with `data`. Raises MessageFault."""
        buffer = self._buffer
        buffer += data
        if len(buffer) < self._need:
            return []
        messages = []
        at, size = 0, len(buffer)
        self._need = PREFIX_BYTES
        while size - at >= PREFIX_BYTES:
            length = int.from_bytes(buffer[at + 1 : at + PREFIX_BYTES], "big")
            if length > self._max_bytes:
                raise too_large(length, self._max_bytes)
            end = at + PREFIX_BYTES + length
            if end > size:
                self._need = end - at
                break
            message = bytes(buffer[at + PREFIX_BYTES : end])
            messages.append(self._unpacked(buffer[at], message))
            at = end
        del buffer[:at]
        return messages

    def _unpacked(self, flag: int, message: bytes) -> bytes:
        if flag == 0:
            return message
        if flag != 1 or self._encoding == "identity":
            raise MessageFault(
                13, "a message is marked as compressed, and the call names no encoding"
            )
        window = _GZIP_WINDOW if self._encoding == "gzip" else zlib.MAX_WBITS
        unpacker = zlib.decompressobj(window)
        try:
            unpacked = unpacker.decompress(message, self._max_bytes + 1)
        except zlib.error:
            raise MessageFault(13, f"a message is no {self._encoding}") from None
        if len(unpacked) > self._max_bytes:
            raise too_large(len(unpacked), self._max_bytes)
        if not unpacker.eof:
            raise MessageFault(13, f"a message is cut off {self._encoding}")
        return unpacked


def too_large(size: int, max_bytes: int) -> MessageFault:
    """Return how a call ends whose message is larger than is read."""
    return MessageFault(8, f"a message has {size} bytes, at most {max_bytes} are read")
