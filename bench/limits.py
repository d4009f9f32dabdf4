"""Raises the limit of open files as far as the system lets us. Used by load.py and worker.py."""

import resource

_FILES_WANTED = 65_536


def raise_file_limit() -> int:
    """Raise the limit to 65,536 or the most that is allowed; return what it is now."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_WANTED if hard == resource.RLIM_INFINITY else max(hard, _FILES_WANTED)
    try:
        # Root may raise the hard limit too.
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
    except (ValueError, PermissionError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
