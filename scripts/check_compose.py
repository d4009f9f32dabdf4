"""Checks docker-compose.yml and deploy/Dockerfile without an engine; `make compose-check` runs it.

Where Docker's compose plugin is installed, its own check runs first. The rest knows what no schema
does: that what is referred to exists, that images are pinned, and that every WAYFARE_ variable is
one that a service reads.
"""

import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic_settings import BaseSettings

PROJECT = Path(__file__).parents[1]
COMPOSE = PROJECT / "docker-compose.yml"
DOCKERFILE = PROJECT / "deploy" / "Dockerfile"
# Read by the `wayfare` command, not by a service's settings.
STACK_VARIABLES = {"WAYFARE_HOME"}
JOB_CONDITION = "service_completed_successfully"

Services = dict[str, dict[str, Any]]


def main() -> int:
    """Print each fault on a line of its own; return 1 when there is one."""
    document = yaml.safe_load(COMPOSE.read_text())
    services: Services = document["services"]
    faults = [
        *_engine_faults(),
        *_image_faults(services),
        *_dependency_faults(services),
        *_volume_faults(services, set(document.get("volumes", {}))),
        *_variable_faults(services),
        *_command_faults(services),
        *_dockerfile_faults(DOCKERFILE.read_text()),
    ]
    for fault in faults:
        print(f"compose-check: {fault}")
    if not faults:
        print(f"compose-check: {len(services)} services and the Dockerfile are in form")
    return 1 if faults else 0


def _engine_faults() -> Iterator[str]:
    docker = shutil.which("docker")
    if docker is None:
        return
    plugin = subprocess.run([docker, "compose", "version"], capture_output=True, check=False)
    if plugin.returncode != 0:
        return
    command = [docker, "compose", "--file", str(COMPOSE), "config", "--quiet"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        yield f"docker compose config: {result.stderr.strip()}"


def _image_faults(services: Services) -> Iterator[str]:
    for name, service in services.items():
        tag = service.get("image", "").partition(":")[2]
        if not tag or tag == "latest":
            yield f"{name}: the image needs a tag that stays what it is"
        build = service.get("build")
        if build and not (PROJECT / build["context"] / build["dockerfile"]).is_file():
            yield f"{name}: {build['dockerfile']} does not exist"


def _dependency_faults(services: Services) -> Iterator[str]:
    jobs: set[str] = set()
    for name, service in services.items():
        for target, terms in service.get("depends_on", {}).items():
            if target not in services:
                yield f"{name}: depends on {target}, which does not exist"
            elif terms["condition"] == JOB_CONDITION:
                jobs.add(target)
            elif "healthcheck" not in services[target]:
                yield f"{name}: waits for the health of {target}, which has no healthcheck"
    for name, service in services.items():
        if name not in jobs and "healthcheck" not in service:
            yield f"{name}: needs a healthcheck"
        if name not in jobs and "restart" not in service:
            yield f"{name}: needs a restart policy"
        if name in jobs and "restart" in service:
            yield f"{name}: a job that ends must not restart"


def _volume_faults(services: Services, declared: set[str]) -> Iterator[str]:
    used = set()
    for name, service in services.items():
        for volume in service.get("volumes", []):
            source = volume["source"] if isinstance(volume, dict) else volume.partition(":")[0]
            used.add(source)
            if source not in declared:
                yield f"{name}: the volume {source} is not declared"
    yield from (f"the volume {volume} is not used" for volume in sorted(declared - used))


def _variable_faults(services: Services) -> Iterator[str]:
    known = {
        "services.booking": _variables("booking") | STACK_VARIABLES,
        "services.identity": _variables("identity") | STACK_VARIABLES,
        "services.ledger": _variables("ledger") | STACK_VARIABLES,
        "services.location": _variables("location") | STACK_VARIABLES,
    }
    for name, service in services.items():
        module = next((word for word in service.get("command", []) if word in known), None)
        allowed = known[module] if module else STACK_VARIABLES
        for variable in service.get("environment", {}):
            # deploy/entrypoint.sh reads X_FILE into X.
            plain = variable if variable in allowed else variable.removesuffix("_FILE")
            if variable.startswith("WAYFARE_") and plain not in allowed:
                yield f"{name}: nothing reads {variable}"


def _variables(service: str) -> set[str]:
    """Return the names of the variables that a service's settings read."""
    module = importlib.import_module(f"services.{service}.settings")
    return {
        f"{settings.model_config.get('env_prefix', '')}{field}".upper()
        for settings in vars(module).values()
        if isinstance(settings, type) and issubclass(settings, BaseSettings)
        for field in settings.model_fields
    }


def _command_faults(services: Services) -> Iterator[str]:
    for name, service in services.items():
        command = service.get("command", [])
        if command[:2] != ["python", "-m"]:
            continue
        path = PROJECT / command[2].replace(".", "/")
        if not (path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()):
            yield f"{name}: python -m {command[2]} does not exist"


def _dockerfile_faults(text: str) -> Iterator[str]:
    lines = text.replace("\\\n", " ").splitlines()
    for line in lines:
        words = line.split()
        if words[:1] == ["COPY"] and not words[1].startswith("--from"):
            for source in words[1:-1]:
                if not (PROJECT / source).exists():
                    yield f"Dockerfile: COPY {source} does not exist"
        if words[:1] == ["ADD"]:
            yield "Dockerfile: COPY says what ADD only may do"
        if words[:1] == ["FROM"] and not re.search(r":\d", words[1]):
            yield f"Dockerfile: {words[1]} needs a version"
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    if not users or users[-1] in {"0", "root"}:
        yield "Dockerfile: the last USER must not be root"
    if not any(line.startswith("ENTRYPOINT [") for line in lines):
        yield "Dockerfile: ENTRYPOINT must be a list, or signals never reach the service"


if __name__ == "__main__":
    sys.exit(main())
