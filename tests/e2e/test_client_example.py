"""The example of the Python client's README, run against the whole stack."""

import asyncio
import re
import sys
import textwrap
from pathlib import Path

import pytest

from services.stack.embedded import EmbeddedStack

CLIENT = Path(__file__).parents[2] / "clients" / "python"
EXAMPLE = CLIENT / "examples" / "drive.py"


@pytest.mark.e2e
async def test_the_example_of_the_readme_runs(stack: EmbeddedStack) -> None:
    password = (stack.secrets / "admin-password").read_text().strip()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLE),
        stack.edge_address,
        password,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()

    assert process.returncode == 0, errors.decode()
    assert 'vehicle_id: "bus-14"' in output.decode()


def test_the_readme_shows_the_example_as_it_is() -> None:
    shown = re.findall(r"```python\n(.*?)```", (CLIENT / "README.md").read_text(), re.DOTALL)

    assert textwrap.indent(shown[0], "    ") in EXAMPLE.read_text()
