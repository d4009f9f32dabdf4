"""Lets a process load its modules in less time; a service's `__main__` imports it before them."""

import gc
import sys

# All that is loaded stays: to look for garbage meanwhile costs a tenth of the start. `serve` of
# `rpc.process` begins to collect.
gc.disable()
# structlog loads rich if it is there, for tracebacks at a terminal. A service writes JSON.
sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # how a module is made absent
