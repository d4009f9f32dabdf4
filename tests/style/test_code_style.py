"""Holds the code, the tests and the documents to the rules that no linter knows."""

import ast
import re
from collections.abc import Iterator
from functools import cache
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


def test_a_file_is_short_enough_to_be_read_at_once() -> None:
    code = [path for path in FILES if path.suffix in {".py", ".lua", ".ts", ".sh"}]
    code = [path for path in code if "gen" not in path.relative_to(PROJECT).parts]
    lengths = {_name(path): len(path.read_text().splitlines()) for path in code}

    # Make a longer one a folder of the same name.
    assert not {name: lines for name, lines in lengths.items() if lines > LINES_MAX}


def test_a_function_fits_on_a_screen() -> None:
    lengths = {
        f"{_name(path)}: {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path in PYTHON
        for node in ast.walk(_parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }

    assert not {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES_MAX}


def test_a_file_has_a_name_that_says_something() -> None:
    assert not [_name(path) for path in PYTHON if path.stem in EMPTY_NAMES]


def test_a_skipped_test_says_what_is_absent() -> None:
    silent = [
        f"{_name(path)}: {ast.unparse(node).splitlines()[0]}"
        for path in PYTHON
        for node in ast.walk(_parsed(path))
        if _skips_without_a_reason(node)
    ]

    assert not silent


def test_a_test_replaces_nothing_behind_the_code_s_back() -> None:
    tools = ("unittest.mock", "monkeypatch", "mocker")
    found = [
        f"{_name(path)}: {tool}"
        for path in PYTHON
        if "tests" in path.parts and "style" not in path.parts
        for tool in tools
        if tool in path.read_text()
    ]

    # Hand the code a fake through its constructor.
    assert not found


def test_no_file_names_a_folder_of_one_machine() -> None:
    found = [f"{_name(path)}: {match}" for path in FILES for match in _machine_paths(path)]

    assert not found


@pytest.mark.parametrize("name", ["requirements.lock", "tests/e2e/node/package-lock.json"])
def test_a_lock_names_no_registry_and_checks_hashes(name: str) -> None:
    text = (PROJECT / name).read_text()
    address = re.search(r'(?<!"url": ")https?://(?!opencollective|github\.com/sponsors)', text)

    assert "sha256:" in text or "sha512-" in text
    assert '"resolved"' not in text
    assert address is None or name.endswith(".json")


def test_a_link_in_a_document_leads_somewhere() -> None:
    broken = [
        f"{_name(path)}: {target}"
        for path in DOCUMENTS
        for target in LINKS.findall(path.read_text())
        if not (path.parent / target).exists()
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


def test_a_make_command_in_a_document_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    unknown = [
        f"{_name(path)}: {target}"
        for path in DOCUMENTS
        for target in re.findall(r"`make ([a-z-]+)", path.read_text())
        if target not in targets
    ]

    assert not unknown


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _skips_without_a_reason(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        if name in {"pytest.mark.skip", "pytest.mark.xfail"}:
            return not any(word.arg == "reason" for word in node.keywords)
        return name in {"pytest.skip", "pytest.xfail"} and not (node.args or node.keywords)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        marks = {ast.unparse(decorator) for decorator in node.decorator_list}
        return bool(marks & {"pytest.mark.skip", "pytest.mark.xfail"})
    return False


def _machine_paths(path: Path) -> list[str]:
    try:
        return MACHINE_PATHS.findall(path.read_text())
    except UnicodeDecodeError:
        return []


@pytest.mark.parametrize("path", sorted((PROJECT / "services").glob("*/__main__.py")), ids=_name)
def test_a_process_begins_with_what_makes_its_start_faster(path: Path) -> None:
    body = ast.parse(path.read_text()).body
    first = next(node for node in body if isinstance(node, ast.Import | ast.ImportFrom))

    assert ast.unparse(first) == "import services.shared.starting"
