"""Start one program that cannot outlive its parent; run as a script by `process.ChildProcess`.

A parent that is killed cannot stop its children, so the kernel is asked to do it (PR_SET_PDEATHSIG,
Linux). The request must come from the child itself, after it changed its user, which clears it, and
before it becomes the program. `subprocess` could do so in a `preexec_fn`, but that is unsafe in a
process with threads, and gRPC has many. This file uses only the standard library: it runs with
`python -I -S`.
"""

import argparse
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Take the user, ask for the death signal, and become the program."""
    parser = argparse.ArgumentParser(prog="launcher")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--death-signal", type=int, required=True)
    parser.add_argument("--user", default="")
    parser.add_argument("--umask", type=lambda text: int(text, 8), default=0o077)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()

    os.umask(options.umask)
    if options.user:
        _become(options.user)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, options.death_signal, 0, 0, 0)
        # The parent may have died before the request was made.
        if os.getppid() != options.parent:
            os.kill(os.getpid(), signal.SIGKILL)
    os.execv(options.command[0], options.command)  # noqa: S606 becoming the program is the point


def _become(user: str) -> None:
    import pwd

    entry = pwd.getpwnam(user)
    os.initgroups(user, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    os.environ["HOME"] = "/"


if __name__ == "__main__":
    main()
