"""What the tests of the program share."""
import contextlib
import faulthandler
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
CAIRN = Path(os.environ.get("CAIRN", TOP / "build/release/cairn")).resolve()


# What a caller ignores would be ignored by all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: left out of the quick tier and of the sanitizer runs")
    config.addinivalue_line(
        "markers", "any_engine: about words and layouts; not run again on the other I/O engine"
    )
    config.addinivalue_line(
        "markers", "words: what is printed and written, next to QEMU's; left out of sanitizer runs"
    )


class Result:
    def __init__(self, done):
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    def json(self):
        return json.loads(self.out)


def call(program, *words, ok=True, timeout=60, **more):
    done = subprocess.run(
        [str(program), *map(str, words)], capture_output=True, text=True, timeout=timeout, **more
    )
    if ok:
        assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
    return Result(done)


def line_with(process, text):
    """The next line of what PROCESS prints that has TEXT in it."""
    while text not in (line := process.stdout.readline()):
        assert line, f"{process.args} ended before it printed {text}"
    return line


def wait_until_free(*images):
    """After kill -9: the kernel keeps the locks of a process until its last flush has ended."""
    until = time.monotonic() + 60
    for image in images:
        while subprocess.run(["qemu-img", "info", image], capture_output=True).returncode != 0:
            assert time.monotonic() < until, f"{image} is still in use"
            time.sleep(0.02)


def traced(calls, *words):
    """The system calls CALLS of a run of cairn, as strace prints them."""
    # Leaks cannot be looked for below strace.
    done = subprocess.run(
        ["strace", "-f", "-e", f"trace={calls}", CAIRN, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def allow_leaks_of(library, folder, monkeypatch):
    """Blocks that LIBRARY (a file name's beginning) itself loses are not reported as ours."""
    (folder / "leaks").write_text(f"leak:{library}\n")
    monkeypatch.setenv("LSAN_OPTIONS", f"suppressions={folder}/leaks:print_suppressions=0")


@pytest.fixture
def cairn():
    return lambda *words, **more: call(CAIRN, *words, **more)


@pytest.fixture
def ours():
    """Cairn under the name qemu-img."""
    link = CAIRN.parent / "compat" / "qemu-img"
    return lambda *words, **more: call(link, *words, **more)


@pytest.fixture
def qemu():
    return lambda *words, **more: call("qemu-img", *words, **more)


@pytest.fixture
def qemu_io():
    def run(image, *commands, fmt="qcow2", ok=True):
        words = [word for command in commands for word in ("-c", command)]
        return call("qemu-io", "-f", fmt, *words, image, ok=ok)

    return run


FAILED = pytest.StashKey()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    report = (yield).get_result()
    if report.failed:
        item.stash[FAILED] = True


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    """A test that hangs where no signal of Python's gets through, in a library of C, ends its process."""
    limit = item.config.getoption("timeout", None)
    if limit:
        faulthandler.dump_traceback_later(limit + 60, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def pytest_runtest_logreport(report):
    """Writes the names of tests that failed to the file that is asked for."""
    if report.failed and "CAIRN_FAILED" in os.environ and "PYTEST_XDIST_WORKER" not in os.environ:
        # What a sanitizer found is not tried again.
        found = any(word in str(report.longrepr) for word in ("Sanitizer", "runtime error:"))
        with open(os.environ["CAIRN_FAILED"], "a") as out:
            out.write(f"{'found' if found else 'failed'} {report.nodeid}\n")


@pytest.fixture
def tmp_path(tmp_path, request):
    """What a test leaves is kept only where it failed: all tests together write tens of gigabytes."""
    yield tmp_path
    if FAILED not in request.node.stash:
        shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def as_root(*words):
    """A command that only root may give; an ordinary user gives it through sudo, as ./test did to install packages."""
    subprocess.run([*([] if os.geteuid() == 0 else ["sudo"]), *map(str, words)], check=True)


@contextlib.contextmanager
def small_file_system(path, size):
    """An empty file system of SIZE ("3m") in a new directory."""
    os.mkdir(path)
    as_root("mount", "-t", "tmpfs", "-o", f"size={size}", "none", path)
    try:
        yield path
    finally:
        as_root("umount", "-l", path)


@pytest.fixture
def loop(folder):
    """Makes loop devices of files; they go with the test."""
    devices = []

    def attach(path, *options):
        device = subprocess.run(
            ["losetup", "-f", "--show", *options, path], capture_output=True, text=True, check=True
        ).stdout.strip()
        devices.append(device)
        return device

    yield attach
    for device in devices:
        subprocess.run(["losetup", "-d", device], check=True)


def sparse_disk(path, size, seed=1, pieces=12):
    """A disk with text, noise and holes, so that every kind of cluster occurs."""
    source = random.Random(seed)
    with open(path, "wb") as out:
        out.truncate(size)
        for i in range(pieces):
            length = source.choice([1, 511, 4096, 5000, 65536, 70001])
            if length >= size:
                continue
            out.seek(source.randrange(0, size - length))
            if i % 3 == 0:
                out.write(source.randbytes(length))
            elif i % 3 == 1:
                out.write((b"the quick brown fox %d " % i * (length // 16 + 1))[:length])
            else:
                out.write(bytes([i]) * length)
    return path


@pytest.fixture
def disk(folder):
    return sparse_disk(folder / "disk.raw", 3 * 1024 * 1024 + 512)
