"""What libvirt and the backup programs that use it send, call by call, while a guest writes.

The same is done with the reference, which shows that the calls are right.
"""
import random
import threading

import nbd
import pytest
from conftest import CAIRN, call
from qmp import Daemon, wait_for

OURS = CAIRN.parent / "compat" / "qemu-storage-daemon"
SIZE = 4 << 20
BLOCK = 65536


class Guest(threading.Thread):
    """Writes blocks through an export, and has what the disk holds, until it is stopped."""

    def __init__(self, url, content):
        super().__init__()
        self.disk = nbd.NBD()
        self.disk.connect_uri(url)
        self.content = bytearray(content)
        self.still = threading.Lock()
        self.dice = random.Random(len(content))
        self.ended = False
        self.error = None

    def run(self):
        while not self.ended:
            try:
                with self.still:
                    self.write(self.dice.randrange(SIZE // BLOCK))
            except nbd.Error as error:
                self.error = error
                return

    def write(self, block):
        data = self.dice.randbytes(4096)
        self.disk.pwrite(data, block * BLOCK)
        self.content[block * BLOCK : block * BLOCK + len(data)] = data

    def stop(self):
        self.ended = True
        self.join()
        assert self.error is None
        self.disk.flush()
        self.disk.shutdown()
        return bytes(self.content)


class Machine:
    """A daemon whose node libvirt-1-format is exported to a guest, and files under it."""

    def __init__(self, program, directory):
        self.program, self.directory = program, directory
        self.number = 1
        self.names = []
        content = random.Random(1).randbytes(SIZE // 2) + bytes(SIZE // 2)
        (directory / "content").write_bytes(content)
        call("qemu-img", "convert", "-O", "qcow2", directory / "content", directory / "1.qcow2")
        self.start()
        self.guest = Guest(self.url("vda"), content)
        self.guest.start()

    def start(self):
        self.daemon = Daemon(self.program, directory=self.directory)
        self.qmp = self.daemon.client()
        self.add(1)
        address = {"type": "unix", "data": {"path": f"{self.directory}/nbd.sock"}}
        self.qmp.command("nbd-server-start", addr=address)
        self.export("libvirt-1-format", "vda", writable=True)

    def close(self):
        """Ends it; what the guest has on its disk."""
        content = bytes(self.guest.content) if self.guest.ended else self.guest.stop()
        self.qmp.close()
        assert self.daemon.stop()[0] == 0
        return content

    def url(self, export):
        return f"nbd+unix:///{export}?socket={self.directory}/nbd.sock"

    def export(self, node, name, **more):
        self.qmp.command(
            "block-export-add", type="nbd", id=name, node__name=node, name=name, **more
        )

    def unexport(self, name):
        self.qmp.command("block-export-del", id=name, mode="hard")
        wait_for(lambda: name not in [e["id"] for e in self.qmp.command("query-block-exports")])

    def path(self, number):
        return str(self.directory / f"{number}.qcow2")

    def add_storage(self, number):
        self.qmp.command(
            "blockdev-add",
            driver="file",
            filename=self.path(number),
            node__name=f"libvirt-{number}-storage",
            auto__read__only=True,
            discard="unmap",
            cache={"direct": False, "no-flush": False},
        )

    def add_format(self, number, backing=None):
        self.qmp.command(
            "blockdev-add",
            driver="qcow2",
            node__name=f"libvirt-{number}-format",
            read__only=False,
            file=f"libvirt-{number}-storage",
            backing=backing,
        )

    def add(self, number):
        self.add_storage(number)
        self.add_format(number)

    def remove(self, number):
        self.qmp.command("blockdev-del", node__name=f"libvirt-{number}-format")
        self.qmp.command("blockdev-del", node__name=f"libvirt-{number}-storage")

    def create(self, below=None):
        """A new image, whose storage is added; gives its number."""
        self.number += 1
        self.run_creation({"driver": "file", "filename": self.path(self.number), "size": 0})
        self.add_storage(self.number)
        node = f"libvirt-{self.number}-storage"
        options = {"driver": "qcow2", "file": node, "size": SIZE}
        if below:
            options |= {"backing-file": self.path(below), "backing-fmt": "qcow2"}
        self.run_creation(options)
        return self.number

    def run_creation(self, options):
        self.qmp.command("blockdev-create", job__id="create", options=options)
        self.conclude("create")

    def begin(self, command, job, **arguments):
        """Starts a job as libvirt does, which dismisses it itself."""
        ends = {"auto__finalize": True, "auto__dismiss": False}
        self.qmp.command(command, job__id=job, **arguments, **ends)

    def status(self, job):
        return {one["id"]: one for one in self.qmp.command("query-jobs")}[job]["status"]

    def conclude(self, job):
        """Waits for the job as libvirt does, which asks after each event, and dismisses it."""
        wait_for(lambda: self.status(job) == "concluded")
        # What libvirt asks next; the reference may end then after a stream.
        if self.program == OURS:
            self.qmp.command("query-named-block-nodes", flat=True)
        (found,) = [one for one in self.qmp.command("query-jobs") if one["id"] == job]
        self.qmp.command("job-dismiss", id=job)
        return found.get("error")

    def transaction(self, *actions):
        """Gives what the guest had on its disk at that moment."""
        with self.guest.still:
            content = bytes(self.guest.content)
            wanted = [{"type": kind, "data": data} for kind, data in actions]
            self.qmp.command("transaction", actions=wanted)
        return content

    def snapshot(self, below, *more):
        number = self.create(below)
        self.add_format(number)
        nodes = {"node": f"libvirt-{below}-format", "overlay": f"libvirt-{number}-format"}
        self.transaction(("blockdev-snapshot", nodes), *more)
        return number

    def image(self, number):
        out = self.directory / "out"
        call("qemu-img", "convert", "-O", "raw", self.path(number), out)
        return out.read_bytes()


@pytest.fixture(params=["ours", "theirs"])
def machine(request, tmp_path):
    one = Machine(OURS if request.param == "ours" else "qemu-storage-daemon", tmp_path)
    yield one
    if one.daemon.process.poll() is None:
        one.close()


def bitmap(node, name, **more):
    return "block-dirty-bitmap-add", {"node": node, "name": name, **more}


def pull(machine, checkpoint, since=None):
    """A backup that a client pulls: the bytes of the moment, and the ranges that it read."""
    fleece = machine.create(1)
    machine.add_format(fleece, "libvirt-1-format")
    node = f"libvirt-{fleece}-format"
    actions, export = [], {}
    if since:
        actions = [
            bitmap(node, "tmp", disabled=True),
            (
                "block-dirty-bitmap-merge",
                {
                    "node": node,
                    "target": "tmp",
                    "bitmaps": [{"node": "libvirt-1-format", "name": since}],
                },
            ),
            ("block-dirty-bitmap-disable", {"node": "libvirt-1-format", "name": since}),
        ]
        export = {"bitmaps": ["tmp"], "allocation__depth": True}
    content = machine.transaction(
        *actions,
        bitmap("libvirt-1-format", checkpoint, persistent=True),
        (
            "blockdev-backup",
            {
                "job-id": "pull",
                "device": "libvirt-1-format",
                "target": node,
                "sync": "none",
                "auto-dismiss": False,
            },
        ),
    )
    machine.export(node, "backup", **export)
    read = read_ranges(machine.url("backup"), "qemu:dirty-bitmap:tmp" if since else None)
    machine.unexport("backup")
    machine.qmp.command("job-cancel", id="pull")
    machine.conclude("pull")
    machine.remove(fleece)
    return content, read


def read_ranges(url, context):
    """The data of an export, or what is dirty of it, over several connections."""
    first, second = nbd.NBD(), nbd.NBD()
    for disk in (first, second):
        for name in ("base:allocation", "qemu:allocation-depth", *([context] if context else ())):
            disk.add_meta_context(name)
        disk.connect_uri(url)
    assert first.can_multi_conn() and first.get_size() == SIZE and first.is_read_only()
    extents = {}

    def note(name, offset, entries, _error):
        for length, flags in zip(entries[::2], entries[1::2]):
            extents.setdefault(name, []).append((offset, length, flags))
            offset += length
        return 0

    at = 0
    while at < SIZE:
        extents.pop("part", None)
        before = {name: len(found) for name, found in extents.items()}
        first.block_status(SIZE - at, at, note)
        (offset, length, _), *_ = extents["base:allocation"][before.get("base:allocation", 0) :][
            -1:
        ]
        at = offset + length
    wanted = extents[context or "base:allocation"]
    found = {}
    for number, (offset, length, flags) in enumerate(wanted):
        if bool(flags & 1) == bool(context):
            found[offset] = (first, second)[number % 2].pread(length, offset)
    first.shutdown()
    second.shutdown()
    return found


def test_checkpoints_are_pulled(machine):
    """Full, then incremental backups, with a restart between: a copy that follows each moment."""
    copy = bytearray(SIZE)
    content, read = pull(machine, "first")
    for number, checkpoint in enumerate(("second", "third")):
        for offset, data in read.items():
            copy[offset : offset + len(data)] = data
        assert copy == content
        wait_for(lambda: bytes(machine.guest.content) != content)
        if number == 1:
            machine.qmp.close()
            kept = machine.guest.stop()
            assert machine.daemon.stop()[0] == 0
            machine.start()
            machine.guest = Guest(machine.url("vda"), kept)
            machine.guest.start()
        content, read = pull(machine, checkpoint, ["first", "second"][number])
        assert sum(map(len, read.values())) <= SIZE
    for offset, data in read.items():
        copy[offset : offset + len(data)] = data
    assert copy == content


def test_snapshots_are_committed(machine):
    """A snapshot with a checkpoint in one transaction; then each layer goes into the one below."""
    top = machine.snapshot(1, bitmap("libvirt-1-format", "old", disabled=True))
    third = machine.snapshot(top)
    # The layer in the middle.
    machine.begin(
        "block-commit",
        "commit",
        device=f"libvirt-{third}-format",
        base__node="libvirt-1-format",
        top__node=f"libvirt-{top}-format",
        backing__file=machine.path(1),
        backing__mask__protocol=True,
    )
    assert machine.conclude("commit") is None
    machine.remove(top)
    # The active one.
    machine.begin(
        "block-commit",
        "commit",
        device=f"libvirt-{third}-format",
        base__node="libvirt-1-format",
    )
    wait_for(lambda: machine.status("commit") == "ready")
    machine.qmp.command("job-complete", id="commit")
    assert machine.conclude("commit") is None
    machine.remove(third)
    content = machine.close()
    assert machine.image(1) == content


def test_snapshots_are_pulled_up(machine):
    """A stream that leaves the lowest image out, then one of all."""
    second = machine.snapshot(1)
    third = machine.snapshot(second)
    node = f"libvirt-{third}-format"
    masked = {"backing__file": machine.path(1), "backing__mask__protocol": True}
    for more in ({"base__node": "libvirt-1-format", **masked}, {}):
        machine.begin(
            "block-stream",
            "pull",
            device=node,
            **more,
        )
        assert machine.conclude("pull") is None
    machine.remove(second)
    machine.remove(1)
    content = machine.close()
    assert machine.image(third) == content
    info = call("qemu-img", "info", "--output=json", machine.path(third)).json()
    assert "backing-filename" not in info


@pytest.mark.parametrize("machine", ["ours"], indirect=True)
def test_a_disk_is_copied_and_pivoted_to(machine):
    """blockcopy: a shallow one, whose target has the chain of the source in the end. The reference loses
    what is around small writes then."""
    top = machine.snapshot(1)
    target = machine.create(1)
    machine.add_format(target)
    machine.begin(
        "blockdev-mirror",
        "copy",
        device=f"libvirt-{top}-format",
        target=f"libvirt-{target}-format",
        sync="top",
        copy__mode="write-blocking",
    )
    wait_for(lambda: machine.status("copy") == "ready")
    machine.qmp.command("job-complete", id="copy")
    assert machine.conclude("copy") is None
    machine.remove(top)
    content = machine.close()
    assert machine.image(target) == content


def test_features_that_are_looked_for(machine):
    schema = {one["name"]: one for one in machine.qmp.command("query-qmp-schema")}
    assert "allow-write-only-overlay" in schema["blockdev-snapshot"]["features"]
    arguments = schema[schema["blockdev-add"]["arg-type"]]
    of_file = {one["case"]: one["type"] for one in arguments["variants"]}["file"]
    assert "dynamic-auto-read-only" in schema[of_file]["features"]
    for command, member in (
        ("block-commit", "backing-mask-protocol"),
        ("block-stream", "backing-mask-protocol"),
        ("block-export-add", "type"),
        ("blockdev-backup", "auto-dismiss"),
    ):
        members = schema[schema[command]["arg-type"]]["members"]
        assert member in [one["name"] for one in members]
