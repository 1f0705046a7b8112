"""A machine that makes rings and refuses their requests: the thread engine takes over."""
import subprocess

import pytest

from conftest import CAIRN

SYSTEM_PYTHON = "/usr/bin/python3"

# A filter that answers io_uring_enter (426) with ERROR, by prctl: no library is needed.
LAUNCHER = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
code = [(0x20, 0, 0, 0), (0x15, 0, 1, 426), (0x06, 0, 0, 0x00050000 | int(sys.argv[1])), (0x06, 0, 0, 0x7fff0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
filter = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code), ctypes.addressof(program)))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, filter, 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.any_engine
@pytest.mark.parametrize("error", [1, 38])
def test_the_thread_engine_takes_over(folder, error):
    with open("a.raw", "wb") as out:
        out.write(b"x" * (4 << 20))
    for words in (
        ["convert", "-T", "none", "-t", "none", "-f", "raw", "-O", "qcow2", "a.raw", "b.qcow2"],
        ["compare", "-T", "none", "a.raw", "b.qcow2"],
    ):
        done = subprocess.run(
            [SYSTEM_PYTHON, "-c", LAUNCHER, str(error), str(CAIRN), *words],
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
