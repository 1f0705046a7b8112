"""The program for Windows under wine."""
import atexit
import fcntl
import functools
import os
import subprocess
from pathlib import Path

from conftest import CAIRN, TOP, call

EXE = Path(os.environ.get("CAIRN_WINDOWS", TOP / "build/windows/cairn.exe")).resolve()
PREFIX = TOP / "build" / "wine"
# What wine itself has to say is not the program's; names are UTF-8.
ENVIRONMENT = {
    **os.environ,
    "WINEPREFIX": str(PREFIX),
    "WINEDEBUG": "-all",
    "WINEDLLOVERRIDES": "mscoree,mshtml=",
    "LC_ALL": "C.UTF-8",
}
ENVIRONMENT.pop("DISPLAY", None)


@functools.cache
def prepare():
    """Makes wine's folders, once for all runs, and starts its services, once for these tests: that takes longer than
    the tests. The services stay as long as a program waits for its input; they must be none that a test has started,
    for they hold its output."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": ENVIRONMENT}
    with open(PREFIX.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keeper = subprocess.Popen(["wine", "cmd"], stdin=subprocess.PIPE, **quiet)
        subprocess.run(["wine", EXE, "--version"], stdin=subprocess.DEVNULL, timeout=300, **quiet)
    atexit.register(lambda: (keeper.stdin.close(), keeper.wait(30)))


def windows(*words, ok=True, **more):
    """A run of cairn.exe."""
    prepare()
    return call("wine", EXE, *words, ok=ok, env=ENVIRONMENT, timeout=45, **more)


def start_windows(*words, **more):
    prepare()
    return subprocess.Popen(
        ["wine", str(EXE), *map(str, words)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **more,
    )


def linux(*words, ok=True, **more):
    return call(CAIRN, *words, ok=ok, **more)
