"""Every verb ends within a second of the first signal, and says what it leaves behind."""
import os
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

from conftest import CAIRN
from nbd_support import ACK, GO, GREETING, IHAVEOPT, INFO, INFO_REPLY, REPLY_MAGIC, Server

SIZE = 8 << 20
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


class Mute:
    """An NBD server that falls silent at STATE."""

    def __init__(self, path, state):
        self.path, self.state = str(path), state
        self.reached = threading.Event()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(64)
        self.held = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                one, _ = self.listener.accept()
            except OSError:
                return
            self.held.append(one)
            threading.Thread(target=self.serve, args=(one,), daemon=True).start()

    def serve(self, one):
        def take(count):
            data = b""
            while len(data) < count:
                part = one.recv(count - len(data))
                if not part:
                    raise ConnectionError
                data += part
            return data

        def reply(option, kind, data=b""):
            one.sendall(struct.pack(">QIII", REPLY_MAGIC, option, kind, len(data)) + data)

        try:
            if self.state == "connect":
                return self.reached.set()
            one.sendall(struct.pack(">QQH", GREETING, IHAVEOPT, 3))
            take(4)
            if self.state == "greeting":
                return self.reached.set()
            while True:
                _, option, length = struct.unpack(">QII", take(16))
                data = take(length)
                if self.state == "half option":
                    one.sendall(struct.pack(">QI", REPLY_MAGIC, option))
                    return self.reached.set()
                if option in (GO, INFO):
                    reply(option, INFO_REPLY, struct.pack(">HQH", 0, SIZE, 1 | 4 | 8 | 32 | 64))
                    reply(option, ACK)
                    if option == GO:
                        break
                else:
                    reply(option, 0x80000001)
            magic, flags, command, cookie, offset, length = struct.unpack(">IHHQQI", take(28))
            if self.state == "half answer":
                one.sendall(struct.pack(">IIQ", 0x67446698, 0, cookie) + bytes(length // 2))
            self.reached.set()
        except OSError:
            pass

    def uri(self):
        return f"nbd+unix:///?socket={self.path}"

    def end(self):
        self.listener.close()
        for one in self.held:
            one.close()


@pytest.fixture
def mute(folder):
    servers = []

    def make(state):
        servers.append(Mute(folder / "mute.sock", state))
        return servers[-1]

    yield make
    for one in servers:
        one.end()


def interrupted(process, which=signal.SIGTERM, limit=1.0):
    """Ends with the signal's code in time; gives what was said."""
    begin = time.monotonic()
    process.send_signal(which)
    try:
        _, err = process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert time.monotonic() - begin < limit + 0.3, err
    assert process.returncode == 128 + which, (process.returncode, err)
    return err


def start(*words):
    return subprocess.Popen(
        [str(CAIRN), *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


VERBS = {
    "info": ["info", "URI"],
    "check": ["check", "-f", "qcow2", "URI"],
    "map": ["map", "URI"],
    "hash": ["hash", "-f", "raw", "URI"],
    "measure": ["measure", "-f", "qcow2", "-O", "raw", "URI"],
    "compare": ["compare", "-f", "raw", "URI", "plain.raw"],
    "convert from": ["convert", "-f", "raw", "-O", "qcow2", "URI", "target.qcow2"],
    "convert to": ["convert", "-n", "-f", "raw", "-O", "qcow2", "plain.raw", "URI"],
    "dd": ["dd", "-f", "raw", "-O", "raw", "if=URI", "of=target.raw"],
    "resize": ["resize", "-f", "qcow2", "URI", "1G"],
    "snapshot": ["snapshot", "-f", "qcow2", "-l", "URI"],
    "amend": ["amend", "-f", "qcow2", "-o", "compat=1.1", "URI"],
    "bench": ["bench", "-f", "raw", "-c", "5", "URI"],
    "serve": ["serve", "-f", "qcow2", "-k", "ours.sock", "URI"],
}


@pytest.mark.any_engine
@pytest.mark.parametrize("state", ["connect", "greeting", "half option", "half answer"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_silent_server_does_not_hold_a_verb_up(folder, mute, verb, state):
    with open("plain.raw", "wb") as out:
        out.write(os.urandom(SIZE))
    server = mute(state)
    process = start(*(word.replace("URI", server.uri()) for word in VERBS[verb]))
    try:
        assert server.reached.wait(20), process.poll()
        time.sleep(0.1)
        if process.poll() is not None:  # this verb asked for nothing that was not answered
            assert verb == "info", process.communicate()
            return
        err = interrupted(process)
        assert verb == "serve" or server.path in err, err
    finally:
        process.kill()
        process.communicate()
    assert not os.path.exists("target.qcow2") and not os.path.exists("target.raw")


@pytest.mark.parametrize("which", SIGNALS)
def test_each_signal_counts(folder, mute, which):
    server = mute("half answer")
    process = start("convert", "-f", "raw", "-O", "qcow2", server.uri(), "target.qcow2")
    assert server.reached.wait(20)
    time.sleep(0.2)
    err = interrupted(process, which)
    assert "cancelled" in err and "The incomplete target 'target.qcow2' was removed." in err
    assert not os.path.exists("target.qcow2")


def test_what_was_not_open_is_as_it_was(folder, mute):
    server = mute("connect")
    process = start("resize", "-f", "raw", server.uri(), "2M")
    assert server.reached.wait(20)
    err = interrupted(process)
    assert "Could not open" in err and "cancelled" in err and "incomplete" not in err


def stops_preallocating(process):
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=10)
    assert time.monotonic() - begin < 1.3, err
    assert process.returncode == 128 + signal.SIGTERM
    assert "'a.raw' is incomplete: the work was not finished." in err


def test_writing_zeroes_listens(folder, cairn):
    cairn("create", "-f", "raw", "a.raw", "1M")
    process = start("resize", "-f", "raw", "--preallocation=full", "a.raw", "1T")
    time.sleep(0.3)
    stops_preallocating(process)


def test_allocating_listens(folder, cairn):
    """Each call allocates at most 64 MiB; here strace makes it last, as a slow file system does."""
    cairn("create", "-f", "raw", "a.raw", "1M")
    slow = ["strace", "-D", "-f", "-qq", "-o", "calls", "-e", "trace=fallocate"]
    slow += ["-e", "inject=fallocate:delay_enter=100ms"]
    words = ["resize", "-f", "raw", "--preallocation=falloc", "a.raw", "2G"]
    process = subprocess.Popen(
        [*slow, CAIRN, *words],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
    )
    calls = folder / "calls"
    deadline = time.monotonic() + 20
    while not calls.exists() or "fallocate" not in calls.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stops_preallocating(process)
    assert os.path.getsize("a.raw") == 1 << 20


@pytest.mark.parametrize("words", [["resize", "a.raw"], ["create", "b.raw"]])
def test_allocating_more_than_is_free_begins_nothing(folder, cairn, words):
    """A file system that is nearly full is not filled up first for the others that use it."""
    cairn("create", "-f", "raw", "a.raw", "1M")
    verb, name = words
    how = ["--preallocation=falloc"] if verb == "resize" else ["-o", "preallocation=falloc"]
    done = subprocess.run(
        ["strace", "-f", "-e", "trace=fallocate", CAIRN, verb, "-f", "raw", *how, name, "1P"],
        capture_output=True,
        text=True,
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
    )
    assert done.returncode == 1 and "No space left on device" in done.stderr
    assert "fallocate(" not in done.stderr
    assert os.path.getsize("a.raw") == 1 << 20 and not os.path.exists("b.raw")


def test_creating_with_preallocation_removes_the_target(folder):
    process = start("create", "-f", "raw", "-o", "preallocation=full", "a.raw", "1T")
    time.sleep(0.3)
    err = interrupted(process)
    assert err.count("The incomplete target 'a.raw' was removed.") == 1
    assert not os.path.exists("a.raw")


def test_control_characters_of_a_name_do_not_reach_the_terminal(folder):
    process = start("create", "-f", "raw", "-o", "preallocation=full", "a\x1b[31m.raw", "1T")
    time.sleep(0.3)
    err = interrupted(process)
    assert "\x1b" not in err and not os.path.exists("a\x1b[31m.raw")


def test_a_limit_of_file_size_is_an_error(folder):
    with open("plain.raw", "wb") as out:
        out.write(os.urandom(SIZE))
    done = subprocess.run(
        [
            "bash",
            "-c",
            f"ulimit -f 2048; exec {CAIRN} convert -f raw -O qcow2 plain.raw target.qcow2",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and "File too large" in done.stderr, (done.returncode, done.stderr)
    assert "The incomplete target 'target.qcow2' was removed." in done.stderr
    assert not os.path.exists("target.qcow2")
    made = subprocess.run(
        [
            "bash",
            "-c",
            f"ulimit -f 2048; exec {CAIRN} create -f raw -o preallocation=full a.raw 8M",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert made.returncode == 1 and made.stderr and not os.path.exists("a.raw"), made


@pytest.mark.any_engine
@pytest.mark.parametrize("how", ["killed", "stopped", "answers"])
def test_a_dead_server_does_not_hold_up_the_end_of_serve(folder, how):
    """Its disk is named, for what was written may not be there."""
    (folder / "disk.raw").write_bytes(bytes(1 << 20))
    back = Server([CAIRN, "serve", "-f", "raw", "-k", "back.sock", "disk.raw"], "back.sock")
    behind = f"driver=raw,file.driver=nbd,file.path={folder}/back.sock,file.reconnect-delay=20"
    front = start("serve", "--image-opts", "-k", "front.sock", behind)
    try:
        while not (folder / "front.sock").exists():
            assert front.poll() is None
            time.sleep(0.02)
        # A client that is gone without a flush.
        client = ["io", "-f", "raw", "-c", "write -P 7 0 64k", "-c", "abort"]
        subprocess.run([CAIRN, *client, "nbd+unix:///?socket=front.sock"], capture_output=True)
        if how != "answers":
            back.job.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        begin = time.monotonic()
        front.send_signal(signal.SIGINT)
        _, said = front.communicate(timeout=20)
        took = time.monotonic() - begin
        if how == "answers":
            assert (front.returncode, said) == (0, "") and took < 1.3
            assert (folder / "disk.raw").read_bytes()[:4] == b"\7\7\7\7"
            return
        why = "cannot be reached" if how == "killed" else "does not answer"
        assert front.returncode == 130 and why in said, said
        assert f"{folder}/back.sock" in said and "may lack what was written since" in said
        assert took < 1.3 if how == "killed" else 4 < took < 6.5, took
    finally:
        front.kill()
        back.job.kill()
        back.job.wait()
