"""A real browser for the end-to-end tests: headless Chromium from npm, driven by Playwright."""

import asyncio
import fcntl
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache

import pytest
from playwright.async_api import Page, async_playwright

from tests.support.e2e_programs import NODE_FOLDER, PROJECT

WEB_INDEX = PROJECT / "clients" / "web" / "dist" / "index.html"
# Unpacked once; several hundred megabytes.
_UNPACKED = PROJECT / ".tools" / "chromium"
_UNPACK = """
import chromium from "@sparticuz/chromium";
console.log(await chromium.executablePath());
"""
# WebGL without a graphics card; no sandbox, because a container's root has none to give.
_ARGUMENTS = [
    "--headless=shell",
    "--no-sandbox",
    "--no-zygote",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-dev-shm-usage",
]
_PACKAGE = NODE_FOLDER / "node_modules" / "@sparticuz" / "chromium" / "bin"

DESKTOP = (1280, 800)
PHONE = (390, 844)


@cache
def _chromium() -> str:
    """Unpack the browser if that is not done, and return its program."""
    if not _PACKAGE.is_dir():
        _go_without("node with npm is absent, by which the browser comes")
    _UNPACKED.mkdir(parents=True, exist_ok=True)
    # Other workers of a parallel run wait until it is whole.
    with (_UNPACKED / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        unpacking = _run("node", "--input-type=module", "--eval", _UNPACK)
    assert unpacking.returncode == 0, unpacking.stderr
    path = unpacking.stdout.strip()
    if "not found" in _run("ldd", path).stdout:
        _go_without("libraries of the browser are absent: apt-get install libnss3 libexpat1")
    return path


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TMPDIR": str(_UNPACKED)}
    return subprocess.run(
        command,
        cwd=NODE_FOLDER,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def _go_without(why: str) -> None:
    if os.environ.get("CI") == "true":
        raise AssertionError(why)
    pytest.skip(why)


@asynccontextmanager
async def browser_page(size: tuple[int, int]) -> AsyncIterator[Page]:
    """Open an empty page; an error in its console fails the test in the end."""
    if sys.platform != "linux":
        pytest.skip("the browser of the tests is a Linux program")
    assert WEB_INDEX.is_file(), "run `make web`"
    path = await asyncio.to_thread(_chromium)
    errors: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path, args=_ARGUMENTS, ignore_default_args=["--headless"]
        )
        try:
            page = await browser.new_page(viewport={"width": size[0], "height": size[1]})
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.set_default_timeout(20_000)
            yield page
        finally:
            async with asyncio.timeout(10):
                await browser.close()
    assert not errors
