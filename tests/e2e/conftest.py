"""What the end-to-end tests share: the edge of a stack, and who speaks to it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from services.stack.embedded import EmbeddedStack
from tests.support.e2e_company import Company
from tests.support.e2e_edge import Edge
from tests.support.e2e_speakers import GrpcurlSpeaker, JsonSpeaker, PythonSpeaker, Speaker

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def edge(stack: EmbeddedStack) -> Edge:
    """Reach the stack that all tests share."""
    return Edge(stack)


@pytest.fixture
def private_edge(private_stack: EmbeddedStack) -> Edge:
    """Reach a stack of which the test may kill parts."""
    return Edge(private_stack)


@pytest.fixture(params=["python", "json", "grpcurl"])
async def speaker(request: pytest.FixtureRequest, edge: Edge) -> AsyncIterator[Speaker]:
    """Speak with each kind of client in turn."""
    async with AsyncExitStack() as stack:
        if request.param == "python":
            yield PythonSpeaker(edge, stack)
        elif request.param == "json":
            yield JsonSpeaker(edge, stack)
        else:
            yield GrpcurlSpeaker(edge)


@pytest.fixture
async def company(edge: Edge, speaker: Speaker) -> Company:
    """Run the operator whose trips are sold."""
    return await Company.open(edge, speaker)
