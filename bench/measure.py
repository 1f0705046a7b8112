"""What the programs of this directory share: how a program is run and measured, and how ratios are printed."""
import os
import select
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path


HEAD = (
    "| work | ratio min / median / max | CPU ratio | ours / theirs | peak memory | target |\n"
    "|---|---|---|---|---|---|"
)


def measure(words, cwd, limit=None):
    """Wall and CPU seconds, peak memory in MiB, and what was printed; None when it did not end within LIMIT seconds."""
    begin = time.monotonic()
    with open(Path(cwd) / "out.txt", "wb") as out:
        job = subprocess.Popen(
            ["/usr/bin/time", "-q", "-o", "memory.txt", "-f", "%M %U %S", *map(str, words)],
            cwd=cwd,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=limit is not None,
        )
        ended = os.pidfd_open(job.pid)
        # wait(limit) would look twenty times a second.
        in_time = select.select([ended], [], [], limit)[0]
        wall = time.monotonic() - begin
        os.close(ended)
        if not in_time:
            os.killpg(job.pid, signal.SIGKILL)
        code = job.wait()
        if not in_time:
            return None
    printed = (Path(cwd) / "out.txt").read_text(errors="replace")
    if code:
        sys.exit(f"{words} failed: {printed}")
    memory, user, system = (Path(cwd) / "memory.txt").read_text().split()[-3:]
    return wall, float(user) + float(system), int(memory) / 1024, printed


def spread(values):
    return f"{min(values):.2f} / {statistics.median(values):.2f} / {max(values):.2f}"
