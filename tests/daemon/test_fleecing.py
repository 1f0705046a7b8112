"""Snapshots by copy-before-write and snapshot-access, as backup programs make them."""
import json
import subprocess
import threading

import pytest
from conftest import CAIRN
from qmp import Daemon, wait_for

OURS = CAIRN.parent / "compat" / "qemu-storage-daemon"
KIB = 1024
SIZE = 4 * KIB * KIB


def run(*words, check=True):
    done = subprocess.run(words, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


class Disk:
    """A daemon that serves the node root, over top, read-write; fl is where old data can go."""

    def __init__(self, program, directory, fleecing_bytes=SIZE):
        self.directory = directory
        for name, size in (("top", SIZE), ("fl", fleecing_bytes), ("copy", SIZE)):
            run("qemu-img", "create", "-q", "-f", "qcow2", directory / f"{name}.img", str(size))
        (directory / "before").write_bytes(b"\1" * (2 * KIB * KIB) + bytes(SIZE - 2 * KIB * KIB))
        image = directory / "top.img"
        run("qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", directory / "before", image)
        self.daemon = Daemon(program, directory=directory)
        self.qmp = self.daemon.client()
        for name in ("top", "fl", "copy"):
            file = {"driver": "file", "filename": f"{name}.img", "discard": "unmap"}
            self.add("qcow2", name, file=file, discard="unmap")
        self.add("raw", "root", file="top", discard="unmap")
        address = {"type": "unix", "data": {"path": "nbd.sock"}}
        self.qmp.command("nbd-server-start", addr=address)
        self.export("root", writable=True)

    def add(self, driver, name, **more):
        self.qmp.command("blockdev-add", driver=driver, node__name=name, **more)

    def export(self, node, **more):
        self.qmp.command("block-export-add", type="nbd", id=node, node__name=node, **more)

    def root_over(self, node):
        options = {"driver": "raw", "node-name": "root", "file": node, "discard": "unmap"}
        self.qmp.command("blockdev-reopen", options=[options])

    def begin(self, **more):
        """The moment: cbw is between root and top, sa shows it."""
        options = {"file": "top", "target": "fl", **more}
        self.add("copy-before-write", "cbw", **options)
        self.root_over("cbw")
        self.add("snapshot-access", "sa", file="cbw", discard="unmap")

    def end(self):
        self.qmp.command("block-export-del", id="sa", mode="hard")
        wait_for(lambda: '"sa"' not in json.dumps(self.qmp.command("query-block-exports")))
        self.qmp.command("blockdev-del", node__name="sa")
        self.root_over("top")
        self.qmp.command("blockdev-del", node__name="cbw")
        self.qmp.command("blockdev-del", node__name="fl")

    def url(self, node):
        return f"nbd+unix:///{node}?socket={self.directory}/nbd.sock"

    def io(self, node, *commands, write=False):
        """What qemu-io says of COMMANDS; its failures begin with a word of the command."""
        words = [word for command in commands for word in ("-c", command)]
        done = run(
            "qemu-io", *([] if write else ["-r"]), "-f", "raw", *words, self.url(node), check=False
        )
        return done.stdout + done.stderr

    def shows_before(self, node):
        compared = ("compare", "-f", "raw", "-F", "raw", self.directory / "before")
        return "identical" in run("qemu-img", *compared, self.url(node)).stdout


@pytest.fixture(params=["ours", "theirs"])
def disk(request, tmp_path):
    yield from opened(request.param, tmp_path)


def opened(whose, directory, **more):
    one = Disk(OURS if whose == "ours" else "qemu-storage-daemon", directory, **more)
    yield one
    one.qmp.close()
    one.daemon.stop()


def test_a_reader_sees_the_moment_while_a_writer_goes_on(disk):
    disk.begin()
    disk.export("sa")
    stop = threading.Event()
    rounds = []

    def write():
        while not stop.is_set():
            number = len(rounds) % 200 + 2
            commands = [f"write -P {number} {i * 96 + 7}k 50k" for i in range(40)]
            rounds.append(disk.io("root", *commands, "discard 1M 64k", "write -z 0 9k", write=True))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_for(lambda: len(rounds) > 1)
        assert disk.shows_before("sa")
        assert disk.shows_before("sa")
    finally:
        stop.set()
        writer.join()
    assert not any("failed" in text for text in rounds)
    found = run("nbdinfo", "--map", disk.url("sa")).stdout
    assert found.split()[:4] == ["0", str(2 * KIB * KIB), "0", "data"]
    disk.end()
    # The writer's disk has what it wrote.
    assert "failed" not in disk.io("root", f"read -P {(len(rounds) - 1) % 200 + 2} 103k 50k")


def test_what_a_backup_has_is_discarded(disk):
    disk.begin()
    disk.export("sa")
    assert "failed" not in disk.io("root", "write -P 5 0 1M", "write -P 6 3M 64k", write=True)
    disk.qmp.command(
        "blockdev-backup",
        device="sa",
        target="copy",
        sync="full",
        job__id="b",
        discard__source=True,
    )
    assert disk.qmp.event("BLOCK_JOB_COMPLETED").get("error") is None
    wait_for(lambda: disk.qmp.command("query-jobs") == [])
    disk.export("copy")
    assert disk.shows_before("copy")
    # Writes go on without being copied, and what was discarded is not shown.
    assert "failed" not in disk.io("root", "write -P 7 0 64k", write=True)
    assert "read failed" in disk.io("sa", "read 0 64k")
    disk.end()
    assert run("qemu-img", "map", "-U", disk.directory / "fl.img").stdout.count("\n") == 1


def test_a_bitmap_says_what_belongs_to_the_moment(disk):
    disk.qmp.command("block-dirty-bitmap-add", node="top", name="b", granularity=65536)
    assert "failed" not in disk.io("root", "write -P 3 1M 64k", write=True)
    disk.begin(bitmap={"node": "top", "name": "b"})
    disk.qmp.command("block-dirty-bitmap-remove", node="top", name="b")
    disk.export("sa")
    assert "failed" not in disk.io("root", "write -P 4 0 2M", write=True)
    assert "failed" not in disk.io("sa", "read -P 3 1M 64k")
    assert "read failed" in disk.io("sa", "read 960k 128k")
    assert "read failed" in disk.io("sa", "read 0 4k")


# The reference ends when the target is too small.
@pytest.mark.parametrize("policy", ["break-guest-write", "break-snapshot"])
def test_old_data_that_cannot_be_copied_breaks_one_of_the_two(policy, tmp_path):
    for disk in opened("ours", tmp_path, fleecing_bytes=SIZE // 4):
        disk.begin(**{"on-cbw-error": policy})
        disk.export("sa")
        written = disk.io("root", "write -P 9 1536k 64k", write=True)
        assert ("write failed" in written) == (policy == "break-guest-write")
        if policy == "break-guest-write":
            assert disk.shows_before("sa")
            assert "failed" not in disk.io("root", "write -P 9 64k 64k", write=True)
            assert disk.shows_before("sa")
        else:
            assert "read failed" in disk.io("sa", "read 0 4k")
            assert "failed" not in disk.io("root", "write -P 9 1600k 64k", write=True)


@pytest.mark.parametrize("policy", ["break-guest-write", "break-snapshot"])
def test_a_copy_that_takes_too_long_has_failed(policy, tmp_path):
    for disk in opened("ours", tmp_path):
        slow = {"bps-total": 16384}
        disk.qmp.command("object-add", qom__type="throttle-group", id="g", limits=slow)
        disk.add("throttle", "slow", **{"throttle-group": "g"}, file="fl")
        disk.begin(**{"on-cbw-error": policy, "cbw-timeout": 1, "target": "slow"})
        disk.export("sa")
        written = disk.io("root", "write -P 9 0 64k", "write -P 9 64k 64k", write=True)
        assert ("write failed" in written) == (policy == "break-guest-write")
        none = {"bps-total": 0}
        disk.qmp.command("qom-set", path="g", property="limits", value=none)
        if policy == "break-guest-write":
            assert disk.shows_before("sa")
        else:
            assert "read failed" in disk.io("sa", "read 0 4k")


@pytest.mark.parametrize("disk", ["ours"], indirect=True)
def test_the_disk_is_resized_and_the_moment_is_not(disk):
    """What is cut off is kept first; what is added later is no part of the moment."""
    disk.begin()
    disk.export("sa")
    # An export over NBD has one size.
    disk.qmp.command("block-export-del", id="root", mode="hard")
    wait_for(lambda: '"root"' not in json.dumps(disk.qmp.command("query-block-exports")))
    for size in (SIZE // 4 + 512, 2 * SIZE):
        disk.qmp.command("block_resize", node__name="root", size=size)
        nodes = disk.qmp.command("query-named-block-nodes", flat=True)
        sizes = {one["node-name"]: one["image"]["virtual-size"] for one in nodes}
        assert [sizes[name] for name in ("root", "cbw", "top", "sa")] == [size, size, size, SIZE]
    disk.export("root", writable=True)
    disk.io("root", f"write -P 5 0 {2 * SIZE}", write=True)
    assert disk.shows_before("sa")
    disk.end()
