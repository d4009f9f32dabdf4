"""Three clients that say the same to the edge: Python, JSON over HTTP, grpcurl. Used by tests/e2e.

Each is asked with messages of the contract and answers with them, so that a story is written once
and told by all. JSON learns paths and verbs from the contract's own `google.api.http`.
"""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc.aio
import httpx
from google.api import annotations_pb2
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from services.stack.environments import DEMO_TENANT_ID
from tests.support.e2e_edge import Edge, bearer, reasons_of
from tests.support.e2e_people import own_address
from tests.support.e2e_programs import GRPCURL, headers_of, run_program, running_program
from tests.support.waiting import until
from wayfare.booking.v1 import booking_service_pb2
from wayfare.identity.v1 import identity_service_pb2
from wayfare.ledger.v1 import ledger_service_pb2
from wayfare.location.v1 import location_service_pb2
from wayfare_client import WayfareClient, WayfareError
from wayfare_client.errors import error_from_rpc

_FILES = {
    "booking": booking_service_pb2,
    "identity": identity_service_pb2,
    "ledger": ledger_service_pb2,
    "location": location_service_pb2,
}


class RefusedError(Exception):
    """Says that a call was refused, with the reason of its ErrorInfo."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(kw_only=True)
class Heard:
    """What a stream said so far; `reason` is why it was refused, once it is `over`."""

    updates: list[Any] = field(default_factory=list)
    reason: str = ""
    over: bool = False

    async def until(self, condition: Callable[[list[Any]], object]) -> None:
        """Wait for a condition on the updates; a stream that ends before it fails the test."""
        await until(lambda: self.over or condition(self.updates))
        assert condition(self.updates), (self.reason, self.updates)

    async def opened(self) -> bool:
        """Wait for the first update; return False if the stream was refused."""
        await until(lambda: self.over or self.updates)
        return bool(self.updates)

    async def end(self) -> str:
        """Wait for the end of the stream; return the reason of a refusal, or ""."""
        await until(lambda: self.over)
        return self.reason


Listening = AbstractAsyncContextManager[Heard]


class Speaker(Protocol):
    """A client of any kind, for any number of people."""

    async def ask(self, method: MethodDescriptor, request: Message, token: str) -> Any:
        """Call, and return the answer; raises RefusedError."""
        ...

    def listen(self, method: MethodDescriptor, request: Message, token: str) -> Listening:
        """Open a stream that answers one request."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody with an account (or none: an empty token) who calls with one kind of client."""

    speaker: Speaker
    token: str = ""
    user_id: str = ""

    async def ask(self, service: str, method: str, **fields: Any) -> Any:
        """Call a method; a `request_id` is made up where the method takes one."""
        found, request = _request(service, method, fields)
        return await self.speaker.ask(found, request, self.token)

    async def refused(self, service: str, method: str, **fields: Any) -> str:
        """Call a method that refuses, and return the reason."""
        try:
            answer = await self.ask(service, method, **fields)
        except RefusedError as error:
            return error.reason
        raise AssertionError(f"{method} was not refused but answered {answer}")

    def listen(self, service: str, method: str, **fields: Any) -> Listening:
        """Open a stream that answers one request."""
        found, request = _request(service, method, fields)
        return self.speaker.listen(found, request, self.token)


class PythonSpeaker:
    """Speaks with the Python client: one for each person."""

    def __init__(self, edge: Edge, stack: AsyncExitStack) -> None:
        self._edge = edge
        self._stack = stack
        self._clients: dict[str, WayfareClient] = {}

    async def ask(self, method: MethodDescriptor, request: Message, token: str) -> Any:
        """Call, and return the answer; raises RefusedError."""
        stub = await self._stub(method, token)
        try:
            return await getattr(stub, method.name)(request)
        except WayfareError as error:
            raise RefusedError(error.reason) from error

    @asynccontextmanager
    async def listen(
        self, method: MethodDescriptor, request: Any, token: str
    ) -> AsyncIterator[Heard]:
        """Open a stream; a trip is followed as apps follow it."""
        stub, heard = await self._stub(method, token), Heard()
        async with AsyncExitStack() as stack:
            if method.name == "FollowTrip":
                client = self._clients[token]
                updates = await stack.enter_async_context(client.follow_trip(request.trip_id))
            else:
                # Streams that the client does not look after need a token from their caller.
                updates = getattr(stub, method.name)(request, metadata=bearer(token))
                stack.callback(updates.cancel)
            async with _reading(_take_refusals(updates, heard), heard):
                yield heard

    async def _stub(self, method: MethodDescriptor, token: str) -> Any:
        if token not in self._clients:
            client = WayfareClient(self._edge.stack.edge_address, tenant_id=DEMO_TENANT_ID)
            if token:
                client.tokens.use_fixed(token)
            self._clients[token] = await self._stack.enter_async_context(client)
        return getattr(self._clients[token], _short_name(method))


class JsonSpeaker:
    """Speaks JSON over HTTP, from a loopback address of its own."""

    def __init__(self, edge: Edge, stack: AsyncExitStack) -> None:
        transport = httpx.AsyncHTTPTransport(local_address=own_address())
        self._web = httpx.AsyncClient(base_url=edge.url, transport=transport, timeout=20)
        stack.push_async_callback(self._web.aclose)

    async def ask(self, method: MethodDescriptor, request: Message, token: str) -> Any:
        """Call, and return the answer; raises RefusedError."""
        answer = await self._web.send(self._request(method, request, token))
        _check(answer)
        return _parsed(method, answer.text)

    @asynccontextmanager
    async def listen(
        self, method: MethodDescriptor, request: Message, token: str
    ) -> AsyncIterator[Heard]:
        """Open a stream, which comes as a line of JSON for each update."""
        heard = Heard()

        async def lines() -> AsyncIterator[Any]:
            answer = await self._web.send(self._request(method, request, token), stream=True)
            try:
                if answer.is_error:
                    await answer.aread()
                _check(answer)
                async for line in answer.aiter_lines():
                    yield _parsed(method, line)
            finally:
                await answer.aclose()

        async with _reading(_take_refusals(lines(), heard), heard):
            yield heard

    def _request(self, method: MethodDescriptor, request: Message, token: str) -> httpx.Request:
        rule = method.GetOptions().Extensions[annotations_pb2.http]
        verb = rule.WhichOneof("pattern")
        body = json_format.MessageToDict(request)
        path = re.sub(
            r"\{([\w.]+)\}", lambda found: _popped(body, found[1].split(".")), getattr(rule, verb)
        )
        headers = {"authorization": f"Bearer {token}"} if token else {}
        values: dict[str, Any] = {"params": list(_query(body))}
        if rule.body == "*":
            values = {"json": body}
        elif rule.body:
            inner = body.pop(_camel(rule.body))
            values = {"json": inner, "params": list(_query(body))}
        return self._web.build_request(verb.upper(), path, headers=headers, **values)


class GrpcurlSpeaker:
    """Speaks with grpcurl, which knows nothing but what server reflection tells."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def ask(self, method: MethodDescriptor, request: Message, token: str) -> Any:
        """Call, and return the answer; raises RefusedError."""
        done = await run_program(*self._command(method, request, token))
        if done.exit_code:
            raise RefusedError(_reason_in(done.errors))
        return _parsed(method, done.output)

    @asynccontextmanager
    async def listen(
        self, method: MethodDescriptor, request: Message, token: str
    ) -> AsyncIterator[Heard]:
        """Open a stream; its updates are printed one after the other."""
        heard = Heard()
        async with running_program(*self._command(method, request, token)) as program:

            async def read() -> None:
                while True:
                    ended = program.process.returncode is not None
                    texts = list(_whole_documents(program.output.decode()))
                    heard.updates[:] = [_parsed(method, text) for text in texts]
                    if ended:
                        heard.reason = _reason_in(program.errors.decode())
                        return
                    await asyncio.sleep(0.02)

            async with _reading(read(), heard):
                yield heard

    def _command(self, method: MethodDescriptor, request: Message, token: str) -> tuple[str, ...]:
        return (
            *(str(GRPCURL), "-plaintext"),
            *(headers_of(token) if token else ()),
            *("-d", json.dumps(_for_grpcurl(request))),
            self._edge.stack.edge_address,
            f"{method.containing_service.full_name}/{method.name}",
        )


def _request(
    service: str, method: str, fields: Mapping[str, Any]
) -> tuple[MethodDescriptor, Message]:
    descriptor = _FILES[service].DESCRIPTOR
    (one,) = descriptor.services_by_name.values()
    found: MethodDescriptor = one.methods_by_name[method]
    values = dict(fields)
    if "request_id" in found.input_type.fields_by_name:
        values.setdefault("request_id", str(uuid.uuid4()))
    return found, message_factory.GetMessageClass(found.input_type)(**values)


def _short_name(method: MethodDescriptor) -> str:
    return str(method.containing_service.full_name.split(".")[1])


def _for_grpcurl(request: Message) -> dict[str, Any]:
    """Return a request as grpcurl reads it: a field mask is not a text there but a message."""
    body = json_format.MessageToDict(request)
    if "updateMask" in body:
        paths: Sequence[str] = getattr(request, "update_mask").paths  # noqa: B009 - not of every message
        body["updateMask"] = {"paths": list(paths)}
    return body


def _parsed(method: MethodDescriptor, text: str) -> Any:
    answer = message_factory.GetMessageClass(method.output_type)()
    return json_format.Parse(text, answer)


def _check(answer: httpx.Response) -> None:
    if answer.is_error:
        ((reason, _),) = reasons_of(answer.json()["details"])
        raise RefusedError(reason)


def _reason_in(errors: str) -> str:
    found = re.search(r'"reason": "(\w+)"', errors)
    return found[1] if found else errors


def _camel(name: str) -> str:
    return re.sub(r"_(\w)", lambda found: found[1].upper(), name)


def _popped(body: dict[str, Any], names: list[str]) -> str:
    """Take a field that the path carries out of the body."""
    for name in names[:-1]:
        body = body[_camel(name)]
    return str(body.pop(_camel(names[-1])))


def _query(body: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Return the fields as a query string names them."""
    for name, value in body.items():
        if isinstance(value, Mapping):
            yield from _query(value, f"{prefix}{name}.")
            continue
        for one in value if isinstance(value, list) else [value]:
            yield f"{prefix}{name}", one if isinstance(one, str) else json.dumps(one)


def _whole_documents(text: str) -> Iterator[str]:
    """Return the JSON documents of a text that is still being written."""
    decoder, position = json.JSONDecoder(), 0
    while True:
        position += len(text[position:]) - len(text[position:].lstrip())
        try:
            _, end = decoder.raw_decode(text, position)
        except ValueError:
            return
        yield text[position:end]
        position = end


async def _take_refusals(updates: Any, heard: Heard) -> None:
    try:
        async for update in updates:
            heard.updates.append(update)
    except (WayfareError, RefusedError) as error:
        heard.reason = error.reason
    except grpc.aio.AioRpcError as error:
        heard.reason = error_from_rpc(error).reason


@asynccontextmanager
async def _reading(reading: Any, heard: Heard) -> AsyncIterator[None]:
    """Read beside the block, and no longer."""

    async def run() -> None:
        try:
            await reading
        finally:
            heard.over = True

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
