"""Makes grpc.aio wake the event loop once per tick instead of once per event.

grpc.aio's poller thread writes a byte to a socket for every event (a message read, a write done),
and each byte wakes the loop: an epoll_wait, a recv, a switch of threads, about a third of the CPU
of a service whose streams carry thousands of small messages a second. Here the loop looks at that
socket, handles all that has come, and then leaves it alone for a tick; bytes written meanwhile wake
nobody. While events are fewer than a thousand a second each is handled at once, so that lone calls
wait for nothing.

grpc.aio has no setting for this (grpc/grpc, aio/completion_queue.pyx.pxi): the loop recognises the
poller by its class, and any other reader, or another version's poller, is left as it is.
"""

import array
import fcntl
import functools
import socket
import termios
from collections.abc import Callable
from typing import Any

import uvloop

_POLLER_CLASS = "PollerCompletionQueue"
_COUNT_SECONDS = 0.1
_GATHER_EVENTS_PER_SECOND = 1_000
# The kernel takes some 270 single bytes into the poller's socket, each with its buffer; then the
# poller would wait for us. So a pause ends well before that many events have come.
_GATHERED_AIM = 120
_GATHERED_MAX = 200


class TickLoop(uvloop.Loop):
    """Is uvloop's loop, but for readers of grpc.aio's poller."""

    def __init__(self, tick_seconds: float) -> None:
        """Let a busy poller wake the loop at most once in `tick_seconds`."""
        super().__init__()
        self._tick_seconds = tick_seconds

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        """Call `callback` when `fd` can be read; a busy poller's at most once per tick."""
        if isinstance(fd, socket.socket) and _is_poller(callback):
            _EventTick(self, fd, callback, self._tick_seconds).watch()
        else:
            super().add_reader(fd, callback, *args)


def _is_poller(callback: Callable[..., Any]) -> bool:
    bound = callback.func if isinstance(callback, functools.partial) else callback
    return type(getattr(bound, "__self__", None)).__name__ == _POLLER_CLASS


class _EventTick:
    """Handles one poller's events: each at once while they are few, some together when many."""

    def __init__(
        self,
        loop: uvloop.Loop,
        wakeups: socket.socket,
        handle: Callable[[], Any],
        tick_seconds: float,
    ) -> None:
        self._loop = loop
        self._wakeups = wakeups
        self._handle = handle
        self._tick_seconds = tick_seconds
        self._pending = array.array("i", [0])
        self._counted = 0
        self._counting_since = loop.time()
        self._pause_seconds = 0.0

    def watch(self) -> None:
        """Wake the loop at the next event, which may be there already."""
        if self._wakeups.fileno() >= 0 and not self._loop.is_closed():
            uvloop.Loop.add_reader(self._loop, self._wakeups, self._run)

    def _run(self) -> None:
        # One byte per event; the handler takes one byte and all events, and needs one to be there.
        fcntl.ioctl(self._wakeups, termios.FIONREAD, self._pending)
        events = self._pending[0]
        if events > 1:
            self._wakeups.recv(events - 1)
        self._count(events)
        if self._pause_seconds > 0 and events < _GATHERED_MAX:
            uvloop.Loop.remove_reader(self._loop, self._wakeups)
            self._loop.call_later(self._pause_seconds, self.watch)
        self._handle()

    def _count(self, events: int) -> None:
        """Decide ten times a second for how long to gather events, by how often they come."""
        self._counted += events
        now = self._loop.time()
        seconds = now - self._counting_since
        if seconds < _COUNT_SECONDS:
            return
        per_second = self._counted / seconds
        self._pause_seconds = 0.0
        if per_second >= _GATHER_EVENTS_PER_SECOND:
            self._pause_seconds = min(self._tick_seconds, _GATHERED_AIM / per_second)
        self._counted = 0
        self._counting_since = now
