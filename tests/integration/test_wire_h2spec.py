"""The HTTP/2 of the wire server against h2spec, which tries what RFC 9113 and RFC 7541 ask."""

import asyncio
import os
import shutil
from typing import Any

import grpc
import pytest

from services.shared.rpc.wire.headers import Fields, Request, request_of
from services.shared.rpc.wire.limits import Limits
from services.shared.rpc.wire.server import WireServer

H2SPEC = shutil.which("h2spec", path=f".tools/bin{os.pathsep}{os.environ['PATH']}")


def as_grpc(fields: Fields) -> Request:
    """Take any request of HTTP as a call, so that its stream lives as long as h2spec wants."""
    rest = [
        (b":method", b"POST") if name == b":method" else (name, value) for name, value in fields
    ]
    return request_of([*rest, (b"content-type", b"application/grpc")])


class AnyMethod(grpc.GenericRpcHandler):
    """Serves every path: reads to the end, then answers with a byte."""

    def service(self, handler_call_details: Any) -> Any:
        return grpc.stream_stream_rpc_method_handler(self._serve)

    async def _serve(self, _requests: Any, context: Any) -> None:
        ended = asyncio.Event()
        context.listen(lambda _message: None, lambda _error: ended.set())
        await context.send_initial_metadata(())
        await ended.wait()
        await context.write(b"x")


@pytest.mark.skipif(H2SPEC is None, reason="scripts/test_tools.sh builds h2spec where go is")
@pytest.mark.slow
async def test_h2spec_finds_no_fault() -> None:
    # h2spec opens as many streams as we say that we bear, and one more.
    server = WireServer(limits=Limits(streams=100), read_request=as_grpc)
    server.add_generic_rpc_handlers([AnyMethod()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        process = await asyncio.create_subprocess_exec(
            str(H2SPEC),
            "--host=127.0.0.1",
            f"--port={port}",
            "--timeout=2",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
    finally:
        await server.stop(0)

    assert process.returncode == 0, output.decode()
    assert b" passed" in output
