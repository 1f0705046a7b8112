"""What people and programs see while a server does not answer."""
# Packages: libcurl3-gnutls
import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import termios
import threading
import time

import pytest

from conftest import CAIRN, call
from support.range_server import RangeServer

LINK = CAIRN.parent / "compat" / "qemu-img"
DATA = os.urandom(1 << 16) * 128


class SlowServer(RangeServer):
    """An HTTP server with ranges that answers the requests from number QUIET_FROM on when told to,
    or drops their connections for as long."""

    def __init__(self, quiet_from, drops=False):
        self.quiet_from, self.drops = quiet_from, drops
        self.go_on, self.asked = threading.Event(), 0
        self.held = threading.Event()
        super().__init__()

    def answer(self, peer, head):
        self.asked += 1
        if self.asked >= self.quiet_from and not self.go_on.is_set():
            self.held.set()
            if self.drops:
                return False
            self.go_on.wait(60)
        first, last = map(int, re.search(r"bytes=(\d+)-(\d+)", head).groups())
        last = min(last, len(DATA) - 1)
        answer = (
            f"HTTP/1.1 206 Partial Content\r\nContent-Length: {last - first + 1}\r\n"
            f'ETag: "a"\r\nContent-Range: bytes {first}-{last}/{len(DATA)}\r\n\r\n'
        )
        peer.sendall(answer.encode() + DATA[first : last + 1])
        return True

    def stop(self):
        self.go_on.set()
        self.socket.close()


@pytest.fixture
def slow(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    servers = []

    def start(*words, **more):
        servers.append(SlowServer(*words, **more))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


class Terminal:
    """PROGRAM with its standard error, and its output where ALL, on a terminal of 80 columns."""

    def __init__(self, *words, all_of_it=False, program=CAIRN):
        self.leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        out = follower if all_of_it else subprocess.PIPE
        self.job = subprocess.Popen([program, *words], stdout=out, stderr=follower)
        os.close(follower)
        self.seen = b""

    def read(self):
        try:
            piece = os.read(self.leader, 65536)
        except OSError:
            piece = b""
        self.seen += piece
        return piece

    def until(self, pattern):
        while not re.search(pattern, self.seen):
            assert self.read(), self.seen

    def end(self):
        while self.read():
            pass
        os.close(self.leader)
        out = self.job.stdout.read() if self.job.stdout else b""
        return self.job.wait(timeout=60), out


def lines_of(seen):
    """What was written to each line over time, in the order of its writing."""
    return [part for part in re.split(rb"\r|\n", seen) if part]


def test_progress_says_that_it_waits(slow, folder):
    server = slow(3)
    done = Terminal("convert", server.url("me:secret@"), "t.raw")
    done.until(rb"waiting for 127\.0\.0\.1:%d \(\d s\)" % server.port)
    server.go_on.set()
    code, out = done.end()
    assert code == 0 and out == b"" and (folder / "t.raw").read_bytes() == DATA
    assert b"secret" not in done.seen
    last = done.seen.rsplit(b"\r", 2)[1]
    assert b"100.0 %" in last and b"waiting" not in last
    assert max(len(line.replace(b"\033[K", b"")) for line in lines_of(done.seen)) <= 80


def test_verbs_without_progress(slow, folder):
    server = slow(1)
    jobs = {verb: Terminal(verb, "-f", "raw", server.url()) for verb in ("info", "map", "check")}
    begin = time.monotonic()
    for verb, job in jobs.items():
        job.until(rb"waiting for 127\.0\.0\.1:%d \(\d+ s\)" % server.port)
        # Where `map` may show a bar it says so earlier.
        assert verb == "map" or time.monotonic() - begin > 4
    server.go_on.set()
    for verb, job in jobs.items():
        code, out = job.end()
        assert code == (0 if verb != "check" else 63) and b"waiting" not in out
        # The line is wiped before anything else is printed.
        assert re.search(rb"waiting for [^\r]*\033\[K\r\033\[K", job.seen), job.seen
        assert b"waiting" not in job.seen.rsplit(b"\r\033[K", 1)[1]


def test_an_error_is_on_a_line_of_its_own(slow, folder):
    server = slow(1)
    name = f"json:{json.dumps(dict(driver='http', url=server.url(), timeout=7, retries=0))}"
    done = Terminal("info", name)
    code, _ = done.end()
    assert code == 1
    assert re.search(rb"waiting for 127[^\r]*\r\033\[Kcairn: Could not open", done.seen), done.seen


def test_reconnecting(slow, folder):
    server = slow(3, drops=True)
    done = Terminal("convert", server.url(), "t.raw")
    done.until(rb"reconnecting to 127\.0\.0\.1:%d \(\d+ s\)" % server.port)
    server.go_on.set()
    code, _ = done.end()
    assert code == 0 and (folder / "t.raw").read_bytes() == DATA


def test_programs_are_told(slow, folder):
    server = slow(3)
    done = subprocess.Popen(
        [CAIRN, "convert", "--progress", "json", server.url("me:secret@"), "t.raw"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = []
    while not any("waiting" in line for line in lines):
        lines.append(json.loads(done.stderr.readline()))
    waiting = lines[-1]["waiting"]
    assert waiting["server"] == f"127.0.0.1:{server.port}" and not waiting["reconnecting"]
    assert 1900 < waiting["ms"] and lines[-1]["state"] == "running"
    server.go_on.set()
    out, rest = done.communicate(timeout=60)
    lines += map(json.loads, rest.splitlines())
    assert out == "" and done.returncode == 0
    assert lines[-1]["state"] == "ended" and "waiting" not in lines[-1]


def test_pipes_and_qemus_names_stay_clean(slow, folder):
    server = slow(1)
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    words = ["info", "-f", "raw", server.url()]
    jobs = [subprocess.Popen([CAIRN, *words, *more], **pipe) for more in (["--output=json"], [])]
    tool = Terminal(*words, program=LINK)
    assert server.held.wait(30)
    with pytest.raises(subprocess.TimeoutExpired):
        jobs[0].wait(timeout=7)
    server.go_on.set()
    for job in jobs:
        out, err = job.communicate(timeout=60)
        assert job.returncode == 0 and err == b"" and b"waiting" not in out
    assert tool.end()[0] == 0 and tool.seen == b""


def test_one_interrupt_ends_it(slow, folder):
    server = slow(1)
    done = Terminal("info", server.url())
    done.until(rb"waiting for")
    begin = time.monotonic()
    done.job.send_signal(signal.SIGINT)
    done.end()
    assert time.monotonic() - begin < 5 and done.job.returncode == 130
    assert done.seen.rstrip().endswith(b"cancelled") or b"\r\033[K" in done.seen


def test_other_protocols(folder):
    quiet = socket.create_server(("127.0.0.1", 0))
    port = quiet.getsockname()[1]
    names = (f"nbd://127.0.0.1:{port}/x", f"nbd:127.0.0.1:{port}:exportname=x")
    for done in [Terminal("info", name) for name in names]:
        done.until(rb"waiting for 127\.0\.0\.1:%d \(\d+ s\)" % port)
        done.job.send_signal(signal.SIGINT)
        done.end()
    quiet.close()


def test_nothing_without_a_server(folder):
    call(CAIRN, "create", "-q", "a.raw", "1M")
    done = Terminal("info", "a.raw")
    assert done.end()[0] == 0 and done.seen == b""
