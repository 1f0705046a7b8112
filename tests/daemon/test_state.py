"""Jobs that are kept with --state: killed at some moment under a client that writes, they go on in the next daemon where
they were, and their results are right."""
import base64
import json
import os
import random
import signal
import subprocess
import threading
import time

import nbd
import pytest
from conftest import CAIRN
from qmp import LIMIT, Daemon, wait_for

OURS = [str(CAIRN), "daemon"]
MIB = 1 << 20
SIZE = 16 * MIB
BLOCK = 4096
DISK = "qcow2,node-name=disk,file.driver=file,file.filename=d.qcow2"
TARGET = "qcow2,node-name=t,file.driver=file,file.filename=t.qcow2"
SERVER = ["--nbd-server", "addr.type=unix,addr.path=nbd.sock"]
EXPORT = ["--export", "nbd,id=e,node-name=disk,name=disk,writable=on"]


class Kept(Daemon):
    """A daemon in DIRECTORY that keeps its jobs in the file "jobs" there."""

    def __init__(self, directory, *words, nodes=(DISK, TARGET), export=True):
        blockdevs = [word for node in nodes for word in ("--blockdev", node)]
        served = [*SERVER, *EXPORT] if export else []
        for name in ("nbd.sock", *[path.name for path in directory.glob("qmp-*.sock")]):
            (directory / name).unlink(missing_ok=True)
        super().__init__(OURS, "--state", "jobs", *blockdevs, *served, *words, directory=directory)

    def command(self, name, /, **arguments):
        client = self.client()
        try:
            return client.command(name, **arguments)
        finally:
            client.close()

    def job(self, name="j"):
        found = [one for one in self.command("query-jobs") if one["id"] == name]
        return found[0] if found else None

    def block_job(self, name="j"):
        found = [one for one in self.command("query-block-jobs") if one["device"] == name]
        return found[0] if found else None

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


class Writer(threading.Thread):
    """Writes blocks of numbers at random places until the server is gone."""

    def __init__(self, directory, seed, first=0, pause=0):
        super().__init__()
        self.disk = nbd.NBD()
        self.disk.connect_uri(f"nbd+unix:///disk?socket={directory}/nbd.sock")
        self.dice, self.number, self.pause = random.Random(seed), first, pause
        self.start()

    def run(self):
        try:
            while True:
                self.number += 1
                block = self.dice.randrange(SIZE // BLOCK)
                self.disk.pwrite(self.number.to_bytes(8, "big") * (BLOCK // 8), block * BLOCK)
                time.sleep(self.pause)
                if self.number % 20 == 0:
                    self.disk.flush()
        except nbd.Error:
            pass


def run(*words, directory=None, code=0):
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, cwd=directory, timeout=LIMIT
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def make_disks(directory, seed=7):
    (directory / "noise.raw").write_bytes(random.Random(seed).randbytes(SIZE))
    run("qemu-img", "convert", "-O", "qcow2", "noise.raw", "d.qcow2", directory=directory)
    run("qemu-img", "create", "-q", "-f", "qcow2", "t.qcow2", str(SIZE), directory=directory)


def same(directory, one, other):
    run(CAIRN, "compare", one, other, directory=directory)


def left_in(directory):
    """Bytes that the job "j" has left, as the file had it when it was stored as a whole last."""
    for line in (directory / "jobs").read_text().splitlines():
        value = json.loads(line[9:])
        if value.get("id") == "j":
            bits = base64.b64decode(value["open"]["bits"])
            return sum(byte.bit_count() for byte in bits) * value["open"]["granularity"]
    return None


def seen_in(directory):
    """The time at which the file says that the daemon was there."""
    lines = [json.loads(line[9:]) for line in (directory / "jobs").read_text().splitlines()]
    return max(line.get("seen", 0) for line in lines)


def begin(daemon, name, **arguments):
    daemon.command(name, job__id="j", device="disk", **arguments)


def test_a_mirror_goes_on_under_writes(tmp_path):
    """Killed again and again, it ends equal; and it is not begun from the start each time."""
    make_disks(tmp_path)
    dice = random.Random(3)
    with Kept(tmp_path) as daemon:
        begin(daemon, "blockdev-mirror", target="t", sync="full", speed=2 * MIB)
        writer = Writer(tmp_path, 0)
        time.sleep(1.2 + dice.random())
        daemon.kill()
        writer.join()
    for turn in range(3):
        with Kept(tmp_path) as daemon:
            assert daemon.job()["status"] in ("running", "ready")
            daemon.command("block-job-set-speed", device="j", speed=[4 * MIB, 0, 0][turn])
            writer = Writer(tmp_path, turn + 1, writer.number)
            if turn == 1:
                wait_for(lambda: daemon.block_job()["ready"])
            time.sleep(1 + dice.random())
            daemon.kill()
            writer.join()
    with Kept(tmp_path) as daemon:
        wait_for(lambda: daemon.block_job()["ready"])
        daemon.command("block-job-cancel", device="j")
        wait_for(lambda: daemon.job() is None)
        assert daemon.stop()[0] == 0
    same(tmp_path, "d.qcow2", "t.qcow2")
    with Kept(tmp_path) as daemon:
        assert daemon.job() is None


def test_only_what_is_left_is_copied(tmp_path):
    make_disks(tmp_path)
    with Kept(tmp_path) as daemon:
        begin(daemon, "blockdev-mirror", target="t", sync="full")
        wait_for(lambda: daemon.block_job()["ready"])
        wait_for(lambda: left_in(tmp_path) == 0)
        io = ["-c", "write -P 5 3M 64k"]
        run("qemu-io", "-f", "raw", *io, f"nbd+unix:///disk?socket={tmp_path}/nbd.sock")
        daemon.kill()
    with Kept(tmp_path) as daemon:
        wait_for(lambda: daemon.block_job()["ready"])
        # The region of the one write, though it was made in the moment before.
        assert daemon.block_job()["len"] == MIB
        daemon.command("job-complete", id="j")
        wait_for(lambda: daemon.job() is None)
        # Its users are at the target now.
        run("qemu-io", "-f", "raw", *io, f"nbd+unix:///disk?socket={tmp_path}/nbd.sock")
        daemon.kill()
    same(tmp_path, "d.qcow2", "t.qcow2")
    with Kept(tmp_path) as daemon:
        # To go on would overwrite what its users have written to the target. Where the end was so long ago
        # that the clock has turned, nothing is left of the job.
        wait_for(lambda: (daemon.job() or {"status": "concluded"})["status"] == "concluded")
        if daemon.job():
            assert daemon.job()["error"].startswith("It was completed, or about to be")


@pytest.mark.parametrize("more", [{}, {"discard__source": True}])
def test_a_backup_keeps_its_moment(tmp_path, more):
    make_disks(tmp_path)
    nodes = (DISK + ",discard=unmap", TARGET)
    with Kept(tmp_path, nodes=nodes) as daemon:
        begin(daemon, "blockdev-backup", target="t", sync="full", speed=2 * MIB, **more)
        writer = None if more else Writer(tmp_path, 1, pause=0.05)
        wait_for(lambda: left_in(tmp_path) < SIZE - MIB)
        daemon.kill()
        if writer:
            writer.join()
    for turn in range(2):
        with Kept(tmp_path, nodes=nodes) as daemon:
            left = daemon.block_job()
            assert left["len"] < SIZE - MIB and left["speed"] == (turn + 2) * MIB
            daemon.command("block-job-set-speed", device="j", speed=3 * MIB)
            if not more:
                writer = Writer(tmp_path, 2 + turn, writer.number, pause=0.05)
            time.sleep(0.7)
            daemon.kill()
            if writer:
                writer.join()
    with Kept(tmp_path, nodes=nodes) as daemon:
        if daemon.block_job():
            daemon.command("block-job-set-speed", device="j", speed=0)
        wait_for(lambda: daemon.job() is None)
        assert daemon.stop()[0] == 0
    same(tmp_path, "noise.raw", "t.qcow2")


@pytest.mark.parametrize("what", ["stream", "commit", "active"])
def test_chains(tmp_path, what):
    (tmp_path / "base.raw").write_bytes(random.Random(7).randbytes(SIZE))
    for name, below, driver in (("mid", "base.raw", "raw"), ("d", "mid.qcow2", "qcow2")):
        more = ["-F", driver, "-b", below, f"{name}.qcow2"]
        run("qemu-img", "create", "-q", "-f", "qcow2", *more, str(SIZE), directory=tmp_path)
    run(CAIRN, "io", "-c", "write -P 6 4M 6M", tmp_path / "mid.qcow2")
    run("qemu-img", "convert", "-O", "raw", "d.qcow2", "want.raw", directory=tmp_path)
    nodes = (
        "raw,node-name=base,file.driver=file,file.filename=base.raw",
        "qcow2,node-name=mid,backing=base,file.driver=file,file.filename=mid.qcow2",
        "qcow2,node-name=disk,backing=mid,file.driver=file,file.filename=d.qcow2",
    )
    begun = {
        "stream": ("block-stream", {}),
        "commit": ("block-commit", {"top__node": "mid", "base__node": "base"}),
        "active": ("block-commit", {"base__node": "base"}),
    }
    with Kept(tmp_path, nodes=nodes) as daemon:
        begin(daemon, begun[what][0], **begun[what][1], speed=2 * MIB)
        time.sleep(0.5)
        daemon.kill()
    with Kept(tmp_path, nodes=nodes) as daemon:
        assert daemon.job()["type"] == ("stream" if what == "stream" else "commit")
        daemon.command("block-job-set-speed", device="j", speed=0)
        if what == "active":
            wait_for(lambda: daemon.block_job()["ready"])
            daemon.command("job-complete", id="j")
        wait_for(lambda: daemon.job() is None)
        daemon.stop()
    same(tmp_path, "want.raw", "base.raw" if what == "active" else "d.qcow2")


def test_nodes_of_commands_and_a_clean_end(tmp_path):
    """What blockdev-add has made is opened again for a job; `quit` keeps jobs as well, with their pauses."""
    make_disks(tmp_path)
    with Kept(tmp_path, nodes=(), export=False) as daemon:
        for name, file in (("disk", "d.qcow2"), ("t", "t.qcow2")):
            below = {"driver": "file", "filename": file}
            daemon.command("blockdev-add", driver="qcow2", node__name=name, file=below)
        begin(daemon, "blockdev-mirror", target="t", sync="full", speed=4 * MIB)
        wait_for(lambda: daemon.block_job()["offset"] >= 6 * MIB)
        # Pieces are copied in any order: until a region is whole, all sixteen are open.
        wait_for(lambda: '"bits": "//8="' not in (tmp_path / "jobs").read_text())
        daemon.command("job-pause", id="j")
        assert daemon.stop()[0] == 0
    kept = (tmp_path / "jobs").stat()
    assert kept.st_mode & 0o777 == 0o600
    with Kept(tmp_path, "--blockdev", "null-co,node-name=n", nodes=(), export=False) as daemon:
        wait_for(lambda: daemon.job()["status"] == "paused")
        names = {node["node-name"] for node in daemon.command("query-named-block-nodes")}
        assert {"disk", "t", "n"} <= names
        daemon.command("job-resume", id="j")
        daemon.command("block-job-set-speed", device="j", speed=0)
        wait_for(lambda: daemon.block_job()["ready"])
        # The regions of which all was copied.
        assert daemon.block_job()["len"] <= SIZE - MIB
        daemon.command("block-job-cancel", device="j")
        wait_for(lambda: daemon.job() is None)
        daemon.stop()
    same(tmp_path, "d.qcow2", "t.qcow2")


def test_the_time_is_kept(tmp_path):
    """Also while nothing happens, and during an end that takes long: a daemon that is killed then has not
    changed its disks later than it says."""
    make_disks(tmp_path)
    place = tmp_path / "slow.sock"
    server = subprocess.Popen(["qemu-nbd", "-f", "raw", "-t", "-k", place, tmp_path / "noise.raw"])
    try:
        wait_for(place.exists)
        slow = f"nbd,node-name=slow,server.type=unix,server.path={place}"
        with Kept(tmp_path, nodes=(DISK, TARGET, slow), export=False) as daemon:
            begin(daemon, "blockdev-mirror", target="t", sync="full")
            wait_for(lambda: daemon.block_job()["ready"] and left_in(tmp_path) == 0)
            since = seen_in(tmp_path)
            wait_for(lambda: seen_in(tmp_path) >= since + 2)
            server.send_signal(signal.SIGSTOP)
            daemon.process.send_signal(signal.SIGTERM)
            since = time.time()
            wait_for(lambda: seen_in(tmp_path) >= since + 2)
            assert daemon.process.poll() is None
            daemon.kill()
    finally:
        server.kill()
        server.wait()


def test_disks_that_others_changed(tmp_path):
    """A mirror begins from the start, a backup fails and says why; so does one on another file."""
    make_disks(tmp_path)
    for name, target in (("blockdev-mirror", "t"), ("blockdev-backup", "t")):
        with Kept(tmp_path) as daemon:
            begin(daemon, name, target=target, sync="full", speed=4 * MIB)
            wait_for(lambda: left_in(tmp_path) < SIZE)
            daemon.kill()
        later = time.time() + 60
        os.utime(tmp_path / "d.qcow2", (later, later))
        with Kept(tmp_path) as daemon:
            if name == "blockdev-mirror":
                assert daemon.block_job()["len"] == SIZE
                daemon.command("job-cancel", id="j")
                wait_for(lambda: daemon.job() is None)
            else:
                wait_for(lambda: daemon.job()["status"] == "concluded")
                assert "d.qcow2' was changed after the daemon had ended" in daemon.job()["error"]
                daemon.kill()
                # Until it is dismissed it is said again.
                with Kept(tmp_path) as daemon:
                    wait_for(lambda: daemon.job()["status"] == "concluded")
                    daemon.command("job-dismiss", id="j")
                    daemon.stop()
            said = daemon.stop()[1]
            if name == "blockdev-mirror":
                assert "job 'j' begins from the start" in said
    with Kept(tmp_path) as daemon:
        assert daemon.command("query-jobs") == []
        begin(daemon, "blockdev-mirror", target="t", sync="full", speed=4 * MIB)
        daemon.kill()
    (tmp_path / "d.qcow2").rename(tmp_path / "old.qcow2")
    run("cp", "old.qcow2", "d.qcow2", directory=tmp_path)
    with Kept(tmp_path) as daemon:
        wait_for(lambda: daemon.job()["status"] == "concluded")
        assert "is another file than before" in daemon.job()["error"]


@pytest.mark.parametrize("name", ["drive-mirror", "drive-backup"])
def test_a_target_that_the_job_has_made(tmp_path, name):
    make_disks(tmp_path)
    with Kept(tmp_path) as daemon:
        made = {"target": "x.qcow2", "format": "qcow2"}
        begin(daemon, name, sync="full", speed=4 * MIB, **made)
        wait_for(lambda: left_in(tmp_path) < SIZE)
        daemon.kill()
    # Names that are made are others now.
    with Kept(tmp_path, nodes=(DISK,)) as daemon:
        assert daemon.block_job()["len"] < SIZE
        daemon.command("block-job-set-speed", device="j", speed=0)
        if name == "drive-mirror":
            wait_for(lambda: daemon.block_job()["ready"])
            daemon.command("block-job-cancel", device="j")
        wait_for(lambda: daemon.job() is None)
        assert daemon.stop()[0] == 0
    same(tmp_path, "noise.raw", "x.qcow2")


@pytest.mark.any_engine
def test_the_file(tmp_path):
    """It is locked; what is damaged or foreign is refused with its name; a section names it as well."""
    words = [*OURS, "--state", "jobs"]
    with Kept(tmp_path, nodes=(), export=False) as daemon:
        daemon.command("query-jobs")
        refused = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT)
        assert refused.returncode == 1 and "jobs' is in use" in refused.stderr
        assert daemon.stop()[0] == 0
    good = (tmp_path / "jobs").read_bytes()
    for content, why in (
        (b"hello\n", "cannot be used"),
        (good.replace(b"seen", b"sane"), "damaged"),
        (good[:-1], "damaged"),
    ):
        (tmp_path / "jobs").write_bytes(content)
        refused = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT)
        assert refused.returncode == 1, content
        assert f"{tmp_path}/jobs" in refused.stderr and why in refused.stderr, refused.stderr
    (tmp_path / "c").write_text(f'[state]\n file = "{tmp_path}/other"\n')
    with Daemon(OURS, "--config", "c", directory=tmp_path) as daemon:
        wait_for((tmp_path / "other").exists)
        assert daemon.stop()[0] == 0
    assert b"cairn-jobs" in (tmp_path / "other").read_bytes()


def test_a_full_disk(tmp_path):
    """The jobs go on, and are kept again when there is space."""
    room = tmp_path / "room"
    room.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=64k", "none", room)
    try:
        make_disks(tmp_path)
        words = ["--blockdev", DISK, "--blockdev", TARGET, *SERVER, *EXPORT]
        with Daemon(OURS, "--state", "room/jobs", *words, directory=tmp_path) as daemon:
            wait_for((room / "jobs").exists)
            with (room / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError):
                while True:
                    filler.write(bytes(4096))
            client = daemon.client()
            arguments = {"job__id": "j", "device": "disk", "target": "t", "sync": "full"}
            client.command("blockdev-mirror", **arguments)
            url = f"nbd+unix:///disk?socket={tmp_path}/nbd.sock"
            run("qemu-io", "-f", "raw", "-c", "write 0 1M", url)
            wait_for(lambda: client.command("query-block-jobs")[0]["ready"])
            assert (room / "jobs").read_bytes() == b""
            (room / "filler").unlink()
            wait_for(lambda: b'"id": "j"' in (room / "jobs").read_bytes())
            client.close()
            said = daemon.stop()[1]
            assert "The jobs are not kept: " in said and "No space left" in said
            assert "The jobs are kept again" in said
    finally:
        run("umount", room)


def test_a_restart_hands_the_file_over(tmp_path):
    make_disks(tmp_path)
    words = ["--state", "jobs", "--blockdev", DISK, "--blockdev", TARGET, *SERVER, *EXPORT]
    with Daemon(OURS, *words, "--pidfile", "pid", directory=tmp_path) as daemon:
        wait_for((tmp_path / "pid").exists)
        client = daemon.client()
        arguments = {"job__id": "j", "device": "disk", "target": "t", "sync": "full"}
        client.command("blockdev-mirror", **arguments, speed=4 * MIB)
        wait_for(lambda: left_in(tmp_path) < SIZE)
        client.close()
        run(CAIRN, "ctl", "--socket", daemon.path, "restart")
        successor = int((tmp_path / "pid").read_text())
        wait_for(lambda: left_in(tmp_path) <= SIZE - 4 * MIB)
        os.kill(successor, signal.SIGKILL)
        daemon.process.communicate(timeout=LIMIT)
    with Kept(tmp_path) as daemon:
        assert daemon.block_job()["len"] <= SIZE - 4 * MIB
        daemon.command("block-job-set-speed", device="j", speed=0)
        wait_for(lambda: daemon.block_job()["ready"])
        daemon.command("block-job-cancel", device="j")
        wait_for(lambda: daemon.job() is None)
        daemon.stop()
    same(tmp_path, "d.qcow2", "t.qcow2")
