"""Opens the dead letters of every service that consumes events, and puts an event into words.

Called by `wayfare dlq`. It works on the database of the running stack, or on one of your own.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from services.shared.errors import DependencyUnavailableError
from services.shared.events.dead_letters import DeadLetters, consuming_schemas
from services.shared.postgres import open_database
from services.stack.envoy_process import DESCRIPTOR_SET
from services.stack.errors import StackError
from services.stack.home import Home
from wayfare.event.v1.envelope_pb2 import Envelope


@asynccontextmanager
async def open_dead_letters(
    home: Home, *, database_url: str = ""
) -> AsyncIterator[Sequence[DeadLetters]]:
    """Give the dead letters of each service, of the named database or of the stack of a home.

    Raises NotRunningError when no database is named and no stack runs, StackError when the database
    does not answer.
    """
    if not database_url:
        home.read_state()
        database_url = (home.secrets / "postgres-admin-dsn").read_text(encoding="utf-8")
    database = await open_database(database_url, pool_size=2)
    try:
        yield [DeadLetters(database, name) for name in await consuming_schemas(database)]
    except DependencyUnavailableError as error:
        raise StackError("PostgreSQL does not answer: see `wayfare status`.") from error
    finally:
        await database.close()


def envelope_words(envelope: bytes) -> Mapping[str, Any]:
    """Return an envelope with its payload, as JSON has it, by the contract in gen/.

    A payload that the contract does not know is left as it is, with its type.
    """
    try:
        message = Envelope.FromString(envelope)
    except DecodeError:
        return {"undecodable": envelope.hex()}
    try:
        words = MessageToDict(
            message, preserving_proto_field_name=True, descriptor_pool=_contract_pool()
        )
    except (TypeError, DecodeError):
        payload = message.payload
        words = _words_without_payload(message)
        words["payload"] = {"@type": payload.type_url, "undecodable": payload.value.hex()}
    return words


def _words_without_payload(message: Envelope) -> dict[str, Any]:
    bare = Envelope()
    bare.CopyFrom(message)
    bare.ClearField("payload")
    words: dict[str, Any] = MessageToDict(bare, preserving_proto_field_name=True)
    return words


def _contract_pool() -> descriptor_pool.DescriptorPool:
    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTOR_SET.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool
