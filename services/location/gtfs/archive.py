"""The files of a feed, from a zip or a folder, as lines of text. Whatever is too large is refused.

A zip may expand to anything: sizes are checked as the archive tells them, before reading, and
again by the reading itself, which never goes past them.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from services.location.gtfs.faults import FeedBrokenError, Findings

_CHUNK_BYTES = 1 << 20
_LINE_BYTES_MAX = 65_536
_COMPRESSIONS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Says how much of a feed is read at most. Memory is about 32 bytes per row of the largest."""

    file_bytes: int = 1_000_000_000
    feed_bytes: int = 2_000_000_000
    files: int = 200
    rows: int = 10_000_000


class FeedFiles:
    """Opens the tables of a feed by name, as `stops.txt`. Use `open_feed`."""

    def __init__(self, path: Path, archive: zipfile.ZipFile | None, sizes: dict[str, int]) -> None:
        """Take what `open_feed` found."""
        self.path = path
        self._archive = archive
        self._sizes = sizes

    def __contains__(self, name: str) -> bool:
        return name in self._sizes

    def size_bytes(self, name: str) -> int:
        """Return the size of a file, expanded."""
        return self._sizes[name]

    def sha256(self) -> bytes:
        """Return what names this feed: of the zip's bytes, or of all files of the folder."""
        digest = hashlib.sha256()
        if self._archive is not None:
            _digest(self.path, digest)
            return digest.digest()
        for name in sorted(self._sizes):
            digest.update(f"{name}\0{self._sizes[name]}\0".encode())
            _digest(self.path / name, digest)
        return digest.digest()

    def lines(self, name: str, findings: Findings) -> Iterator[str]:
        """Yield the lines of a file; one that cannot be read is a fault and ends it."""
        number = 0
        try:
            with self._open(name) as stream:
                while line := stream.readline(_LINE_BYTES_MAX):
                    number += 1
                    problem = _problem(line)
                    if problem:
                        what, mend = problem
                        findings.fault(name, number, "", line[:40], what=what, mend=mend)
                        return
                    yield (line.removeprefix(_BOM) if number == 1 else line).decode()
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
            what, mend = "the file is damaged here", "download or export the feed again"
            findings.fault(name, number + 1, "", error, what=what, mend=mend)

    def _open(self, name: str) -> IO[bytes]:
        return self._archive.open(name) if self._archive else (self.path / name).open("rb")


@contextmanager
def open_feed(path: Path, limits: Limits) -> Iterator[FeedFiles]:
    """Open a feed; raise FeedBrokenError when it is none or too large."""
    findings = Findings()
    if path.is_dir():
        sizes = {file.name: file.stat().st_size for file in path.glob("*.txt") if file.is_file()}
        _check_sizes(path.name, sizes, limits, findings)
        findings.refuse_if_broken()
        yield FeedFiles(path, None, sizes)
        return
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        findings.fault(
            path.name,
            0,
            "",
            error,
            what="this is no zip file that can be read",
            mend="name a GTFS zip, or a folder with its .txt files",
        )
        raise FeedBrokenError(findings) from error
    with archive:
        sizes = _members(path.name, archive, limits, findings)
        _check_sizes(path.name, sizes, limits, findings)
        findings.refuse_if_broken()
        yield FeedFiles(path, archive, sizes)


def _members(
    name: str, archive: zipfile.ZipFile, limits: Limits, findings: Findings
) -> dict[str, int]:
    entries = archive.infolist()
    if len(entries) > limits.files:
        findings.fault(
            name,
            0,
            "",
            len(entries),
            what=f"the archive holds more than {limits.files} files",
            mend="zip the feed's .txt files only",
        )
        return {}
    texts = [entry for entry in entries if entry.filename.endswith(".txt")]
    if any(entry.flag_bits & 1 for entry in texts):
        what, mend = "the archive is encrypted", "zip the feed without a password"
        findings.fault(name, 0, "", "", what=what, mend=mend)
    if any(entry.compress_type not in _COMPRESSIONS for entry in texts):
        what, mend = "the archive is compressed in a rare way", "zip the feed with deflate"
        findings.fault(name, 0, "", "", what=what, mend=mend)
    if texts and all("/" in entry.filename for entry in texts):
        findings.fault(
            name,
            0,
            "",
            texts[0].filename,
            what="the files lie in a folder inside the archive",
            mend="zip the files themselves, not the folder that holds them",
        )
    return {entry.filename: entry.file_size for entry in texts if "/" not in entry.filename}


def _check_sizes(name: str, sizes: dict[str, int], limits: Limits, findings: Findings) -> None:
    for file, size in sizes.items():
        if size > limits.file_bytes:
            findings.fault(
                file,
                0,
                "",
                size,
                what=f"the file expands to more than {limits.file_bytes} bytes",
                mend="split the feed by agency or by period",
            )
    total = sum(sizes.values())
    if total > limits.feed_bytes:
        findings.fault(
            name,
            0,
            "",
            total,
            what=f"the feed expands to more than {limits.feed_bytes} bytes",
            mend="split the feed by agency or by period",
        )


def _problem(line: bytes) -> tuple[str, str] | None:
    if len(line) == _LINE_BYTES_MAX and not line.endswith(b"\n"):
        return f"the line is longer than {_LINE_BYTES_MAX} bytes", "end each row with a line break"
    if b"\0" in line:
        return "the line holds a NUL byte", "save the file as UTF-8 text"
    try:
        line.decode()
    except UnicodeDecodeError:
        return "the line is not UTF-8", "save the file as UTF-8"
    return None


def _digest(path: Path, digest: "hashlib._Hash") -> None:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
