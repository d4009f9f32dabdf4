"""Holds the documented error reasons and the code to each other."""

import ast
import re
from functools import cache

import pytest

from tests.style.contract import PROJECT, Element, reason_text, reasons

# A reason of a method that a later version serves carries these words in its comment.
LATER = "Not raised yet"

REASONS = list(reasons())
every_reason = pytest.mark.parametrize(
    "reason", [element for _, element in REASONS], ids=lambda element: element.name
)


@cache
def sources() -> str:
    """Return all text that can raise a reason: the services, and what Envoy answers itself."""
    return "\n".join(
        path.read_text()
        for folder in ("services", "envoy")
        for path in sorted((PROJECT / folder).rglob("*"))
        if path.suffix in {".py", ".lua", ".yaml", ".json"} and not path.name.startswith("test_")
    )


def raised(text: str) -> bool:
    """Return whether the code names the reason as a string or as an enum value."""
    return f'"{text}"' in sources() or f"ERROR_REASON_{text}" in sources()


@every_reason
def test_a_reason_documents_an_example(reason: Element) -> None:
    assert "Example:" in reason.comment


@every_reason
def test_a_reason_documents_its_code_or_where_else_it_travels(reason: Element) -> None:
    assert re.search(r"Code\s+[A-Z]|Refused\s+within|Sent\s+as", reason.comment)


@every_reason
def test_a_reason_is_raised_or_says_that_it_is_not_yet(reason: Element) -> None:
    text = reason_text(reason)

    if LATER in reason.comment:
        assert not raised(text), f"{text} is raised: take '{LATER}' out of its comment"
    else:
        assert raised(text), f"{text} is raised nowhere in services/ or envoy/"


def test_no_service_documents_a_reason_that_the_policy_documents() -> None:
    shared = {reason_text(reason) for package, reason in REASONS if package == "wayfare.policy.v1"}
    own = {reason_text(reason) for package, reason in REASONS if package != "wayfare.policy.v1"}

    assert not shared & own


def test_every_reason_in_the_code_is_documented() -> None:
    documented = {reason_text(reason) for _, reason in REASONS}
    undocumented = [
        f"{path.relative_to(PROJECT)}: {reason}"
        for path in sorted((PROJECT / "services").rglob("*.py"))
        for reason in _assigned_reasons(ast.parse(path.read_text()))
        if reason and reason not in documented
    ]

    assert not undocumented


def _assigned_reasons(module: ast.Module) -> list[str]:
    """Return the values of `reason = "…"` in class bodies."""
    found = []
    for node in ast.walk(module):
        if not isinstance(node, ast.ClassDef):
            continue
        for statement in node.body:
            targets: list[ast.expr] = []
            if isinstance(statement, ast.Assign):
                targets = statement.targets
            elif isinstance(statement, ast.AnnAssign):
                targets = [statement.target]
            else:
                continue
            named = any(
                isinstance(target, ast.Name) and target.id == "reason" for target in targets
            )
            value = statement.value
            if named and isinstance(value, ast.Constant) and isinstance(value.value, str):
                found.append(value.value)
    return found
