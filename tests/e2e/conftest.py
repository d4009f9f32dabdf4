"""What the end-to-end tests share: the edge of the session's stack, and of one of a test's own."""

from pathlib import Path

import pytest

from services.stack.embedded import EmbeddedStack
from tests.support.e2e_edge import Edge

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def edge(stack: EmbeddedStack) -> Edge:
    """Reach the stack that all tests share."""
    return Edge(stack)


@pytest.fixture
def private_edge(private_stack: EmbeddedStack) -> Edge:
    """Reach a stack of the test's own, parts of which it may kill."""
    return Edge(private_stack)
