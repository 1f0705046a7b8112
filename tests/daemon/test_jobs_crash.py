"""Jobs of the daemon that are killed: the images are sound, and show what they showed before."""
import random
import shutil
import signal
import struct
import subprocess
import threading
import time

import nbd
import pytest
from conftest import CAIRN, wait_until_free
from job_disks import Disks, run
from qmp import Daemon, wait_for

DAEMON = CAIRN.parent / "compat" / "qemu-storage-daemon"
ROUNDS = 4
BLOCK = 4096

JOBS = {
    "stream": ("block-stream", {}),
    "stream to base": ("block-stream", {"base_node": "base"}),
    "commit": ("block-commit", {"top_node": "mid"}),
    "active commit": ("block-commit", {}),
    "mirror": ("blockdev-mirror", {"target": "target", "sync": "full"}),
    "backup": ("blockdev-backup", {"target": "target", "sync": "full"}),
}


@pytest.mark.parametrize("job", JOBS)
def test_killed(job, tmp_path):
    """At some moment of the job, and of the switch at its end."""
    dice = random.Random(job)
    name, arguments = JOBS[job]
    for number in range(ROUNDS):
        with Daemon(DAEMON) as daemon:
            disks = Disks(daemon, tmp_path / str(number))
            before = str(tmp_path / "before.img")
            run("qemu-img", "convert", "-U", "-O", "raw", disks.path("top"), before)
            disks.ask(name, device="top", job_id="j", speed=dice.choice([0, 1 << 22]), **arguments)
            if number % 2:
                disks.client.exchange({"execute": "job-complete", "arguments": {"id": "j"}})
            time.sleep(dice.random() / 20)
            daemon.process.send_signal(signal.SIGKILL)
            daemon.process.wait()
            disks.client.close()
        check_chain(disks)
        run("qemu-img", "compare", "-q", "-F", "raw", disks.path("top"), before)
        shutil.rmtree(tmp_path / str(number))


def check_chain(disks):
    """The images of a daemon that was killed are sound."""
    wait_until_free(*map(disks.path, ("base", "mid", "top")))
    for image in ("base", "mid", "top"):
        check = subprocess.run(
            ["qemu-img", "check", "-q", "-f", "qcow2", disks.path(image)], check=False
        )
        assert check.returncode in (0, 3), image  # 3: clusters that nobody uses


class Writer(threading.Thread):
    """A client that writes blocks until the server is gone, and knows what each may hold then."""

    def __init__(self, url, before, seed):
        super().__init__()
        self.disk = nbd.NBD()
        self.disk.connect_uri(url)
        self.dice = random.Random(seed)
        # By block: what was flushed last, and what was written or begun since.
        self.stable = [before[i : i + BLOCK] for i in range(0, len(before), BLOCK)]
        self.since = {}
        self.flushes = 0

    def run(self):
        try:
            for number in range(1 << 30):
                block = self.dice.randrange(len(self.stable))
                data = struct.pack(">Q", number + 1) * (BLOCK // 8)
                self.since.setdefault(block, []).append(data)
                self.disk.pwrite(data, block * BLOCK)
                if number % 5 == 4:
                    self.disk.flush()
                    for block, written in self.since.items():
                        self.stable[block] = written[-1]
                    self.since.clear()
                    self.flushes += 1
        except nbd.Error:
            pass

    def knows(self, content):
        """True when CONTENT has everything that was flushed, or what was written after it."""
        return all(
            content[i * BLOCK : (i + 1) * BLOCK] in (stable, *self.since.get(i, ()))
            for i, stable in enumerate(self.stable)
        )


# The job has switched the client to another image, or not: one of the two has what it wrote.
SWITCHES_TO = {"active commit": "base", "mirror": "target"}


@pytest.mark.parametrize("job", JOBS)
def test_killed_under_writes(job, tmp_path):
    """While a client writes: what it has flushed is in the disk."""
    dice = random.Random(job)
    name, arguments = JOBS[job]
    for number in range(ROUNDS):
        with Daemon(DAEMON) as daemon:
            disks = Disks(daemon, tmp_path / str(number))
            before = content_of(disks, "top", tmp_path)
            path = tmp_path / "nbd.sock"
            address = {"type": "unix", "data": {"path": str(path)}}
            disks.ask("nbd-server-start", addr=address)
            disks.ask("block-export-add", type="nbd", id="e", node_name="top", writable=True)
            writer = Writer(f"nbd+unix:///top?socket={path}", before, job)
            writer.start()
            wait_for(lambda: writer.flushes > 2)
            more = {"copy_mode": "write-blocking"} if job == "mirror" and number > 1 else {}
            speed = 0 if number % 2 else 1 << 22
            reply = disks.ask(name, device="top", job_id="j", speed=speed, **arguments, **more)
            assert "return" in reply
            if number % 2 and job in SWITCHES_TO:
                kind = name.removeprefix("block-").removeprefix("blockdev-")
                disks.until_after(f'BLOCK_JOB_READY j {{"type": "{kind}"}}')
                disks.client.send({"execute": "job-complete", "arguments": {"id": "j"}})
            time.sleep(dice.random() / 30)
            daemon.process.send_signal(signal.SIGKILL)
            daemon.process.wait()
            disks.client.close()
            writer.join()
        check_chain(disks)
        images = {"top", SWITCHES_TO.get(job, "top")}
        assert any(writer.knows(content_of(disks, image, tmp_path)) for image in images)
        shutil.rmtree(tmp_path / str(number))


def content_of(disks, image, directory):
    raw = directory / "content.img"
    run("qemu-img", "convert", "-U", "-O", "raw", disks.path(image), raw)
    return raw.read_bytes()
