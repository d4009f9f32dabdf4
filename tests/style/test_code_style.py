"""Holds the code, the tests and the documents to the rules that no linter knows."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.style.contract import PROJECT

CODE_FOLDERS = ("bench", "clients", "envoy", "proto", "scripts", "services", "tests")
FOLDERS = (".ci", ".github", "deploy", "docs", *CODE_FOLDERS)
LINES_MAX = 400
FUNCTION_LINES_MAX = 70
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "manager", "base", "common", "misc"}
# Written without the slash that would make this line its own finding.
MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:" + "work|home|root|Users|mnt|media" + r")/[\w.]")
LINKS = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)")


def _text_files() -> Iterator[Path]:
    for path in sorted(PROJECT.iterdir()):
        if path.is_file() and path.name != "requirements.lock":
            yield path
    for folder in FOLDERS:
        for path in sorted((PROJECT / folder).rglob("*")):
            parts = path.relative_to(PROJECT).parts
            if path.is_file() and not {"node_modules", "__pycache__", "third_party"} & set(parts):
                yield path


def _name(path: Path) -> str:
    return str(path.relative_to(PROJECT))


FILES = list(_text_files())
PYTHON = [path for path in FILES if path.suffix == ".py"]
DOCUMENTS = [path for path in FILES if path.suffix == ".md"]
every_file = pytest.mark.parametrize("path", FILES, ids=_name)
every_python_file = pytest.mark.parametrize("path", PYTHON, ids=_name)


@every_python_file
def test_a_file_is_short_enough_to_be_read_at_once(path: Path) -> None:
    lines = len(path.read_text().splitlines())

    assert lines <= LINES_MAX, f"{lines} lines: make it a folder of the same name"


@every_python_file
def test_a_function_fits_on_a_screen(path: Path) -> None:
    long = [
        f"{node.name}: {(node.end_lineno or node.lineno) - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno >= FUNCTION_LINES_MAX
    ]

    assert not long


@every_python_file
def test_a_file_has_a_name_that_says_something(path: Path) -> None:
    assert path.stem not in EMPTY_NAMES


@every_python_file
def test_a_skipped_test_says_what_is_absent(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if isinstance(node, ast.Call) and name in {"pytest.mark.skip", "pytest.mark.xfail"}:
            assert any(word.arg == "reason" for word in node.keywords), f"line {node.lineno}"
        if isinstance(node, ast.Call) and name in {"pytest.skip", "pytest.xfail"}:
            assert node.args or node.keywords, f"line {node.lineno}"
    for decorator in _decorators(path):
        assert decorator not in {"pytest.mark.skip", "pytest.mark.xfail"}, "give a reason"


@pytest.mark.parametrize(
    "path",
    [path for path in PYTHON if "tests" in path.parts and "style" not in path.parts],
    ids=_name,
)
def test_a_test_replaces_nothing_behind_the_code_s_back(path: Path) -> None:
    text = path.read_text()

    for tool in ("unittest.mock", "monkeypatch", "mocker"):
        assert tool not in text, f"{tool}: hand the code a fake through its constructor"


@every_file
def test_no_file_names_a_folder_of_one_machine(path: Path) -> None:
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        return

    assert not [match.group() for match in MACHINE_PATHS.finditer(text)]


@pytest.mark.parametrize("name", ["requirements.lock", "tests/e2e/node/package-lock.json"])
def test_a_lock_names_no_registry_and_checks_hashes(name: str) -> None:
    text = (PROJECT / name).read_text()
    address = re.search(r'(?<!"url": ")https?://(?!opencollective|github\.com/sponsors)', text)

    assert "sha256:" in text or "sha512-" in text
    assert '"resolved"' not in text
    assert address is None or name.endswith(".json")


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_a_link_in_a_document_leads_somewhere(path: Path) -> None:
    broken = [
        target for target in LINKS.findall(path.read_text()) if not (path.parent / target).exists()
    ]

    assert not broken


def test_every_decision_is_in_the_list_of_decisions() -> None:
    folder = PROJECT / "docs" / "adr"
    listed = LINKS.findall((folder / "README.md").read_text())
    pages = sorted(path.name for path in folder.glob("[0-9]*.md"))

    assert sorted(listed) == pages
    assert [name[:4] for name in pages] == [f"{n:04}" for n in range(1, len(pages) + 1)]


def test_every_make_target_explains_itself() -> None:
    makefile = (PROJECT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    explained = set(re.findall(r"^([a-z-]+):.*## [A-Z]", makefile, re.MULTILINE))

    assert targets == explained


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_a_make_command_in_a_document_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", path.read_text()))

    assert named <= targets


def _decorators(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from (ast.unparse(decorator) for decorator in node.decorator_list)
