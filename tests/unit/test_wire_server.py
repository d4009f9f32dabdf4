"""How the wire server finds methods, binds and lets go of its address; and how budgets fill."""

import socket
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.shared.rpc.wire.limits import Budget
from services.shared.rpc.wire.server import WireServer
from tests.support.wire_peer import echo


class Clock:
    """Stands still until told to move."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_a_budget_bears_a_burst_and_then_so_many_a_second() -> None:
    clock = Clock()
    budget = Budget(clock, (3, 2))
    assert [budget.spend() for _ in range(4)] == [True, True, True, False]

    clock.seconds += 1.1
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    clock.seconds += 1_000
    assert [budget.spend() for _ in range(4)].count(True) == 3


async def test_each_method_is_wrapped_once_and_others_are_not_kept() -> None:
    asked: list[str] = []

    def wrap(path: str, handler: Any) -> Any:
        asked.append(path)
        return handler

    handler: Any = grpc.unary_unary_rpc_method_handler(echo)
    server = WireServer(wrap=wrap)
    server.add_registered_method_handlers("test.Test", {"One": handler})
    generic = grpc.method_handlers_generic_handler("test.Test", {"Two": handler})
    server.add_generic_rpc_handlers((generic,))

    for path in ("/test.Test/One", "/test.Test/Two", "/test.Test/Three") * 2:
        assert (server._find(path) is None) == path.endswith("Three")
    assert asked == ["/test.Test/One", "/test.Test/Two"]


async def test_a_port_that_is_taken_is_an_error() -> None:
    server, other = WireServer(), WireServer()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    with pytest.raises(OSError, match="in use"):
        other.add_insecure_port(f"127.0.0.1:{port}")
    await server.stop(0)


async def test_a_socket_that_a_dead_process_left_is_replaced(short_folder: Path) -> None:
    path = short_folder / "left.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    server = WireServer()
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    assert path.is_socket()

    await server.stop(0)
    assert not path.exists()


async def test_the_socket_of_a_process_that_took_our_place_stays(short_folder: Path) -> None:
    path = short_folder / "shared.sock"
    older, newer = WireServer(), WireServer()
    older.add_insecure_port(f"unix:{path}")
    await older.start()
    newer.add_insecure_port(f"unix:{path}")
    await newer.start()
    await older.stop(0)

    assert path.is_socket()
    await newer.stop(0)
