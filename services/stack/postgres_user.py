"""The system user that PostgreSQL runs as when the stack is started by root, who may not run it.

Called by `postgres.PostgresServer`. Started by anybody else, PostgreSQL runs as that user and
nothing here acts.
"""

import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path

_OWN_USER = "pgserver"
_FALLBACK_USER = "nobody"


def postgres_system_user() -> str | None:
    """Return the user to run PostgreSQL as, or None when it runs as the current one."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(_OWN_USER)
    except KeyError:
        return _create_user()
    return _OWN_USER


def hand_over_folder(folder: Path, user: str | None) -> None:
    """Create a folder of mode 0700 that belongs to the user."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        allow_passage(folder)


def hand_over_file(path: Path, user: str) -> None:
    """Give a file to the user."""
    entry = pwd.getpwnam(user)
    os.chown(path, entry.pw_uid, entry.pw_gid)


def allow_passage(path: Path) -> None:
    """Let other users pass through the folders above a path (search permission only, no listing).

    Root's home is often closed (0700), and both the data folder and the programs may lie below it.
    """
    for folder in path.resolve().parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)


def _create_user() -> str:
    useradd = shutil.which("useradd")
    if useradd is None:
        return _FALLBACK_USER
    done = subprocess.run(
        [useradd, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", _OWN_USER],
        capture_output=True,
        check=False,
    )
    already_exists = 9
    return _OWN_USER if done.returncode in (0, already_exists) else _FALLBACK_USER
