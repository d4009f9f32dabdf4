"""Call a method at the edge over gRPC, gRPC-Web or JSON, with one form of answer."""

import asyncio
import base64
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
from google.rpc import code_pb2, error_details_pb2
from grpc_status import rpc_status

from tests.support.envoy_fixtures import EnvoyMesh
from tests.support.stub_services import DESCRIPTOR_SET


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a caller got: `code` is the canonical name, `reason` and `domain` are ErrorInfo's."""

    code: str
    reason: str = ""
    domain: str = ""
    http_status: int = 0
    retry_after: str = ""
    saw: Mapping[str, str] = field(default_factory=dict)
    instance: str = ""


def unary(channel: grpc.aio.Channel, path: str) -> "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]":
    """Return a method that takes and gives bytes as they are."""
    return channel.unary_unary(path)


async def call_grpc(
    mesh: EnvoyMesh, path: str, *, headers: Mapping[str, str], channel: Any = None
) -> Answer:
    """Call with an empty message over gRPC, by default at the edge."""
    async with channel or mesh.edge_channel() as used:
        call = unary(used, path)(b"", metadata=tuple(headers.items()), timeout=10)
        code = await call.code()
        if code is not grpc.StatusCode.OK:
            return _from_status(await rpc_status.aio.from_call(call), code)
        initial = dict(await call.initial_metadata())
    return Answer(
        code="OK",
        saw=json.loads(str(initial["x-stub-saw"])),
        instance=str(initial["x-stub-instance"]),
    )


async def call_grpc_web(mesh: EnvoyMesh, path: str, *, headers: Mapping[str, str]) -> Answer:
    """Call with an empty message over gRPC-Web, with `buf curl` as the client."""
    options = [part for item in headers.items() for part in ("--header", ": ".join(item))]
    process = await asyncio.create_subprocess_exec(
        *(
            str(Path(sys.executable).with_name("buf")),
            "curl",
            "--protocol",
            "grpcweb",
            "--data",
            "{}",
        ),
        *("--schema", str(DESCRIPTOR_SET), *options, f"{mesh.url}{path}"),
        cwd=DESCRIPTOR_SET.parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await asyncio.wait_for(process.communicate(), timeout=20)
    if process.returncode == 0:
        return Answer(code="OK")
    document = json.loads(errors)
    info, retry = error_details_pb2.ErrorInfo(), ""
    for detail in document.get("details", []):
        value = base64.b64decode(detail["value"] + "==")
        if detail["type"] == "google.rpc.ErrorInfo":
            info.ParseFromString(value)
        if detail["type"] == "google.rpc.RetryInfo":
            retry = "given"
    return Answer(
        code=document["code"].upper(), reason=info.reason, domain=info.domain, retry_after=retry
    )


async def call_json(
    mesh: EnvoyMesh,
    verb: str,
    path: str,
    *,
    headers: Mapping[str, str],
    body: str | bytes | None = None,
) -> Answer:
    """Call over JSON."""
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        answer = await client.request(verb, mesh.url + path, headers=dict(headers), content=body)
    if answer.is_success:
        saw = json.loads(answer.headers.get("x-stub-saw", "{}"))
        instance = answer.headers.get("x-stub-instance", "")
        return Answer(code="OK", http_status=answer.status_code, saw=saw, instance=instance)
    status = answer.json()
    found = {detail["@type"].rpartition(".")[2]: detail for detail in status.get("details", [])}
    info = found.get("ErrorInfo", {})
    return Answer(
        code=code_pb2.Code.Name(status["code"]),
        reason=info.get("reason", ""),
        domain=info.get("domain", ""),
        http_status=answer.status_code,
        retry_after="given" if "RetryInfo" in found else "",
    )


def _from_status(status: Any, code: grpc.StatusCode) -> Answer:
    info, retry = error_details_pb2.ErrorInfo(), ""
    for detail in status.details if status else []:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = "given"
    return Answer(code=code.name, reason=info.reason, domain=info.domain, retry_after=retry)
