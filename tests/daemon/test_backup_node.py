"""cairn backup --daemon: disks of a running daemon, ours and QEMU's, that are written meanwhile.

The daemon writes the backup, or cairn fetches it (--pull).
"""
import contextlib
import json
import os
import signal
import socket
import subprocess
import time

import pytest

from conftest import CAIRN, sparse_disk
from nbd_support import free_port
from qmp import Daemon, wait_for

PROGRAMS = {
    "cairn": CAIRN.parent / "compat" / "qemu-storage-daemon",
    "qemu": "qemu-storage-daemon",
}


class Machine:
    """A daemon with the node disk0, which is exported; one monitor is for the backups."""

    def __init__(self, program, folder, fmt, slow=False, pull=False, port=None, options=()):
        self.folder = folder
        self.backups = folder / "backup.sock" if port is None else f"127.0.0.1:{port}"
        self.nbd = folder / "nbd.sock"
        # Old data goes beside the image, where the daemon knows its file.
        self.way = ["--pull", "--nbd", str(self.nbd)] if pull else []
        if slow and pull:
            self.way += ["--scratch", str(folder)]
        place = f"path={self.backups}" if port is None else f"host=127.0.0.1,port={port}"
        (folder / "backup.sock").unlink(missing_ok=True)
        self.daemon = Daemon(
            program,
            *options,
            "--chardev",
            f"socket,id=b,{place},server=on,wait=off",
            "--monitor",
            "b",
            "--nbd-server",
            f"addr.type=unix,addr.path={self.nbd}",
        )
        self.client = self.daemon.client()
        disk = {
            "driver": fmt,
            "node-name": "below" if slow else "disk0",
            "file": {"driver": "file", "filename": str(folder / f"a.{fmt}")},
        }
        self.client.command("blockdev-add", **disk)
        if slow:
            self.limit(0)
            self.client.command(
                "blockdev-add",
                driver="throttle",
                **{"node-name": "disk0", "throttle-group": "g", "file": "below"},
            )
        self.client.command(
            "block-export-add",
            **{"id": "e", "type": "nbd", "node-name": "disk0", "name": "", "writable": True},
        )

    def limit(self, rate):
        limits = {"bps-read": rate}
        if self.client.ask("qom-get", path="/objects/g", property="limits").get("return"):
            self.client.command("qom-set", path="/objects/g", property="limits", value=limits)
        else:
            self.client.command(
                "object-add", **{"qom-type": "throttle-group", "id": "g", "limits": limits}
            )

    def write(self, *commands):
        words = [word for command in commands for word in ("-c", command)]
        uri = f"nbd+unix:///?socket={self.nbd}"
        subprocess.run(["qemu-io", "-f", "raw", *words, uri], check=True, capture_output=True)

    def words(self, *more):
        place = ["--daemon", str(self.backups), "--node", "disk0", "b"]
        return [CAIRN, "backup", *self.way, *more, *place]

    def back_up(self, *more):
        done = subprocess.run(
            self.words("--output=json", *more), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        return told["backup"] | {"reason": told.get("reason", "")}

    def copies(self):
        jobs = self.client.command("query-jobs")
        return any(one["type"] == "backup" for one in jobs)

    def state(self):
        """The nodes, the bitmaps of disk0 and the jobs."""
        nodes = self.client.command("query-named-block-nodes")
        named = {node["node-name"]: node for node in nodes}
        bitmaps = [one["name"] for one in named["disk0"].get("dirty-bitmaps", []) if "name" in one]
        names = {name for name in named if name.startswith("cairn-")}
        assert not list(self.folder.glob("*.scratch"))
        exports = [one["id"] for one in self.client.command("query-block-exports")]
        assert exports == ["e"]
        return names, bitmaps, self.client.command("query-jobs")

    def keep(self, number):
        uri = f"nbd+unix:///?socket={self.nbd}"
        subprocess.run(
            ["qemu-img", "convert", "-f", "raw", "-O", "raw", uri, f"{number}.raw"], check=True
        )

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.client.close()
        code, said = self.daemon.stop()
        # Of a backup that was killed.
        lines = [line for line in said.splitlines() if " socket: " not in line]
        assert (code, lines) == (0, [])


def same(number):
    subprocess.run(
        ["qemu-img", "compare", "-q", "-F", "raw", f"b/{number:06}.qcow2", f"{number}.raw"],
        check=True,
    )


@pytest.fixture(params=PROGRAMS)
def program(request):
    return PROGRAMS[request.param]


@pytest.fixture(params=[False, True], ids=["push", "pull"])
def pull(request):
    return request.param


def test_a_chain(program, pull, folder, cairn):
    sparse_disk("a.raw", 8 << 20)
    cairn("convert", "-f", "raw", "a.raw", "a.qcow2")
    with Machine(program, folder, "qcow2", pull=pull) as machine:
        machine.write("write -P 1 0 64k")
        machine.keep(1)
        assert machine.back_up()["method"] == "full"
        machine.write("write -P 2 1M 100k", "write -z 3M 64k")
        machine.keep(2)
        second = machine.back_up()
        assert (second["method"], second["parent"]) == ("bitmap", 1)
        assert second["bytes"] < 1 << 20
        names, bitmaps, jobs = machine.state()
        assert (names, bitmaps, jobs) == (set(), [second["bitmap"]], [])
        machine.write("write -P 3 5M 64k")
        machine.keep(3)
        assert machine.back_up("-c")["method"] == "bitmap"
        machine.write("write -P 4 6M 64k")
    # The record is in the image: the daemon may be started anew, and the image backed up alone.
    with Machine(program, folder, "qcow2", pull=pull) as machine:
        machine.keep(4)
        assert machine.back_up()["method"] == "bitmap"
        machine.write("write -P 5 7M 64k")
        machine.keep(5)
    assert cairn("backup", "--output=json", "a.qcow2", "b").json()["backup"]["method"] == "bitmap"
    for number in range(1, 6):
        same(number)
    cairn("backup", "--verify", "b")


def test_without_persistent_bitmaps(program, pull, folder, cairn):
    sparse_disk("a.raw", 8 << 20)
    with Machine(program, folder, "raw", pull=pull) as machine:
        machine.back_up()
        machine.write("write -P 2 1M 100k")
        machine.keep(2)
        assert machine.back_up()["method"] == "bitmap"
        same(2)
        bitmap = machine.state()[1][0]
        machine.client.command("block-dirty-bitmap-remove", node="disk0", name=bitmap)
        third = machine.back_up()
        assert third["kind"] == "full" and "no record" in third["reason"]
    with Machine(program, folder, "raw") as machine:
        assert machine.back_up()["kind"] == "full"
        done = subprocess.run(
            machine.words()[:-2] + ["disk7", "b"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1 and "no node 'disk7'" in done.stderr
        assert "disk0" in done.stderr
    cairn("backup", "--verify", "b")
    assert cairn("backup", "--daemon", "none.sock", "--node", "x", "b", ok=False).code == 1


# Bytes a second: of a daemon that ends what it does for a backup at once, and of one that does not.
@pytest.mark.parametrize("rate", [1 << 25, 1 << 18], ids=["quick", "slow"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_what_ends_early(program, pull, folder, cairn, how, rate):
    """The next backup has every change, and nothing of the first one is left in the daemon."""
    (folder / "a.raw").write_bytes(os.urandom(64 << 20))
    with Machine(program, folder, "raw", slow=True, pull=pull) as machine:
        machine.limit(0)
        first = machine.back_up()
        machine.limit(rate)
        machine.write("write -P 7 0 60M")
        with subprocess.Popen(machine.words(), stderr=subprocess.PIPE, text=True) as process:
            wait_for(lambda: process.poll() is not None or machine.copies())
            begin = time.monotonic()
            process.send_signal(how)
            said = process.communicate()[1]
            # A second, and what a busy machine adds.
            assert time.monotonic() - begin < 3
        assert process.returncode == (130 if how == signal.SIGINT else -how)
        if how == signal.SIGINT:
            left = "next backup to this directory removes them" in said
            assert left or machine.state() == (set(), [first["bitmap"]], []), said
            # The reference ends a job when all of its many requests have been answered.
            if rate == 1 << 25 and program != "qemu-storage-daemon":
                assert not left, said
            assert sorted(os.listdir("b")) == ["000001.qcow2", "manifest.json"]
        machine.limit(0)
        machine.keep(2)
        second = machine.back_up()
        assert second["method"] == "bitmap"
        assert machine.state() == (set(), [second["bitmap"]], [])
        same(2)
    cairn("backup", "--verify", "b")


def test_a_daemon_that_stops_answering(program, pull, folder, cairn):
    """An interrupt ends the backup all the same, and the next one clears what it leaves."""
    (folder / "a.raw").write_bytes(os.urandom(4 << 20))
    with Machine(program, folder, "raw", slow=True, pull=pull) as machine:
        machine.limit(1 << 18)
        with subprocess.Popen(machine.words(), stderr=subprocess.PIPE, text=True) as process:
            wait_for(lambda: process.poll() is not None or machine.copies())
            machine.daemon.process.send_signal(signal.SIGSTOP)
            begin = time.monotonic()
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=20)[1]
            # A second, and what a busy machine adds.
            assert time.monotonic() - begin < 3
            machine.daemon.process.send_signal(signal.SIGCONT)
        assert process.returncode == 130, said
        assert "next backup to this directory removes them" in said
        machine.limit(0)
        machine.keep(1)
        made = machine.back_up()
        assert machine.state() == (set(), [made["bitmap"]], [])
        same(1)
    cairn("backup", "--verify", "b")


def test_the_monitor_is_no_monitor(folder, cairn):
    (folder / "file").write_text("x")
    told = cairn("backup", "--daemon", "./file", "--node", "x", "b", ok=False)
    assert told.code == 1 and "./file" in told.err


def test_the_moment_is_kept_while_it_is_fetched(program, folder, cairn):
    """What is overwritten in the middle of the copy, before and after it was read."""
    (folder / "a.raw").write_bytes(os.urandom(8 << 20))
    with Machine(program, folder, "raw", slow=True, pull=True) as machine:
        machine.back_up()
        machine.write("write -P 1 0 8M")
        machine.keep(2)
        machine.limit(1 << 20)
        with subprocess.Popen(machine.words("-q")) as process:
            wait_for(lambda: process.poll() is not None or machine.copies())
            machine.write("write -P 9 1M 100k", "write -P 8 7k 5k", "discard 1M 64k")
            assert process.poll() is None
            machine.limit(0)
            assert process.wait() == 0
        machine.keep(3)
        # What was written meanwhile is in the next one.
        third = machine.back_up()
        assert third["method"] == "bitmap" and third["bytes"] < 2 << 20
        same(2)
        same(3)
    cairn("backup", "--verify", "b")


def test_a_daemon_of_another_machine(program, folder, cairn):
    """It is reached by TCP alone; there is no server of NBD, and old data has a place of its own."""
    (folder / "a.raw").write_bytes(os.urandom(1 << 20))
    (folder / "old").mkdir()
    (folder / "keys.psk").write_text("cairn:00112233445566778899aabbccddeeff\n")
    key = ["--object", f"tls-creds-psk,id=t,dir={folder},endpoint=server"]
    port, nbd = free_port(), free_port()
    with Machine(program, folder, "raw", port=port, options=key) as machine:
        machine.keep(1)
        words = ["--nbd", f":{nbd}", "--scratch", str(folder / "old")]
        done = subprocess.run(machine.words(*words), capture_output=True, text=True)
        assert done.returncode == 1 and "--nbd" in done.stderr, done.stderr
        machine.client.command("block-export-del", id="e", mode="hard")
        wait_for(lambda: not machine.client.command("query-block-exports"))
        machine.client.command("nbd-server-stop")
        secret = f"tls-creds-psk,id=c,dir={folder},endpoint=client,username=cairn"
        with_tls = ["--object", secret, "--tls-creds", "c"]
        assert machine.back_up(*words)["kind"] == "full"
        assert machine.back_up(*words, *with_tls)["method"] == "bitmap"
        # The server that was started for this is gone again.
        address = {"type": "unix", "data": {"path": str(machine.nbd)}}
        machine.client.command("nbd-server-start", addr=address)
        machine.client.command(
            "block-export-add",
            **{"id": "e", "type": "nbd", "node-name": "disk0", "name": "", "writable": True},
        )
        names, _, jobs = machine.state()
        assert (names, jobs) == (set(), [])
        assert not list((folder / "old").iterdir())
        # What has the name here is not what it has there.
        (folder / "here").mkdir()
        words[-1] = "/proc/self/cwd"
        machine.client.command("block-export-del", id="e", mode="hard")
        wait_for(lambda: not machine.client.command("query-block-exports"))
        machine.client.command("nbd-server-stop")
        done = subprocess.run(
            machine.words(*words), cwd=folder / "here", capture_output=True, text=True
        )
        (left,) = machine.daemon.directory.glob("*.scratch")
        assert f"cwd/{left.name}' stays on the daemon's machine, empty" in done.stdout
        assert left.stat().st_size == 0
    same(1)
    cairn("backup", "--verify", "b")


def test_a_server_that_was_left_is_ended(program, folder):
    """A killed backup leaves the server of NBD that it started; the next one ends it."""
    (folder / "a.raw").write_bytes(os.urandom(8 << 20))
    with Machine(program, folder, "raw", slow=True) as machine:
        machine.client.command("block-export-del", id="e", mode="hard")
        wait_for(lambda: not machine.client.command("query-block-exports"))
        machine.client.command("nbd-server-stop")
        machine.limit(1 << 18)
        machine.way = ["--pull", "--scratch", str(folder)]
        with subprocess.Popen(machine.words("-q")) as process:
            wait_for(
                lambda: process.poll() is not None or machine.client.command("query-block-exports")
            )
            assert process.poll() is None
            process.kill()
        assert machine.client.command("query-block-exports")
        machine.limit(0)
        other = folder / "other.sock"
        assert machine.back_up("--nbd", str(other))["kind"] == "full"
        assert machine.client.command("query-block-exports") == []
        assert not other.exists()
        assert machine.client.error("nbd-server-stop")[1] == "NBD server not running"


def test_options_of_pulling(cairn):
    for words in (["--pull", "disk", "b"], ["--daemon", "h:", "--node", "x", "b"]):
        assert cairn("backup", *words, ok=False).code != 0


def test_nobody_takes_the_connection(folder):
    """An interrupt ends the attempt."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = listener.getsockname()[1]
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        words = [CAIRN, "backup", "--daemon", f"127.0.0.1:{port}", "--node", "n", "b"]
        process = stack.enter_context(subprocess.Popen(words, stderr=subprocess.PIPE, text=True))
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=20)[1]
        assert time.monotonic() - begin < 3 and process.returncode == 130, said
        assert said == "cairn: cancelled\n"
