"""How header blocks are read: with Envoy's table and Huffman codes, and without telling anybody."""

import logging
from typing import Any

import hpack
import hpack.hpack
import pytest
from hpack.huffman_table import decode_huffman as decode_each_time

from services.shared.rpc.wire import headers
from services.shared.rpc.wire.frames import ConnectionFault, ErrorCode

TOKEN = "eyJhbGciOiJFZERTQSJ9." + "Ab3dEf6hIj" * 30
FIELDS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/test.Test/Call"),
    ("content-type", "application/grpc+proto"),
    ("te", "trailers"),
    ("authorization", f"Bearer {TOKEN}"),
    ("grpc-timeout", "1500m"),
    ("x-two-bin", "AAE=,/w"),
]


def test_a_callers_headers_are_read_again_and_again_by_the_peers_table() -> None:
    encoder, decoder = hpack.Encoder(), headers.new_decoder()
    sizes = []
    for _ in range(3):
        block = encoder.encode(FIELDS)
        sizes.append(len(block))
        request = headers.request_of(headers.decode(decoder, block))

        assert request.path == "/test.Test/Call"
        assert request.timeout_seconds == 1.5
        assert request.metadata == (
            ("authorization", f"Bearer {TOKEN}"),
            ("x-two-bin", b"\0\1"),
            ("x-two-bin", b"\xff"),
        )
    assert sizes[2] < sizes[0] / 10


@pytest.mark.parametrize("length", [0, 1, 300, 5_000])
def test_texts_are_the_same_from_memory(length: int) -> None:
    text = (TOKEN * 20)[:length].encode()
    packed = hpack.huffman.HuffmanEncoder(
        hpack.huffman_constants.REQUEST_CODES, hpack.huffman_constants.REQUEST_CODES_LENGTH
    ).encode(text)

    codec: Any = hpack.hpack
    for _ in range(2):
        assert codec.decode_huffman(packed) == decode_each_time(packed) == text


def test_a_broken_text_stays_broken() -> None:
    decoder = headers.new_decoder()
    for _ in range(2):
        with pytest.raises(ConnectionFault) as caught:
            headers.decode(decoder, b"\x00\x81\xff\x81\xff")
        assert caught.value.code is ErrorCode.COMPRESSION_ERROR


def test_a_list_of_headers_that_is_too_long_ends_the_connection() -> None:
    block = headers.literal(b"x", b"y" * 60_000) * 5

    with pytest.raises(ConnectionFault) as caught:
        headers.decode(headers.new_decoder(), block)
    assert caught.value.code is ErrorCode.ENHANCE_YOUR_CALM


def test_tokens_are_not_logged_even_where_everything_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    headers.decode(headers.new_decoder(), hpack.Encoder().encode(FIELDS))

    assert "Bearer" not in caplog.text
