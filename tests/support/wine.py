"""The program for Windows under wine."""
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
    """Makes wine's folders, once for all runs: that takes longer than the tests."""
    with open(PREFIX.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (PREFIX / "system.reg").exists():
            subprocess.run(
                ["wine", EXE, "--version"], env=ENVIRONMENT, capture_output=True, timeout=300
            )
            subprocess.run(["wineserver", "-w"], env=ENVIRONMENT, timeout=300)


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
