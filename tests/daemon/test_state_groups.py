"""Jobs that are kept with --state and depend on more than their disks: those that conclude together, and backups by a
bitmap."""
import signal

import pytest
from qmp import LIMIT, wait_for
from test_state import DISK, MIB, SIZE, TARGET, Kept, Writer, begin, left_in, make_disks, run, same

OTHER = (
    "qcow2,node-name=disk2,file.driver=file,file.filename=d2.qcow2",
    "qcow2,node-name=t2,file.driver=file,file.filename=t2.qcow2",
)
NODES = (DISK, TARGET, *OTHER)


def io(directory, *commands):
    words = [word for command in commands for word in ("-c", command)]
    run("qemu-io", "-f", "raw", *words, f"nbd+unix:///disk?socket={directory}/nbd.sock")


def begin_together(daemon, **more):
    """The one that copies nothing but zeroes has nothing left soon, and waits."""
    data = [
        {"job-id": "j", "device": "disk", "target": "t", "sync": "full", "speed": 2 * MIB, **more},
        {"job-id": "k", "device": "disk2", "target": "t2", "sync": "full", **more},
    ]
    actions = [{"type": "blockdev-backup", "data": one} for one in data]
    daemon.command("transaction", actions=actions, properties={"completion-mode": "grouped"})
    wait_for(lambda: daemon.job("k")["status"] == "waiting")


@pytest.fixture
def disks(tmp_path):
    make_disks(tmp_path)
    for name in ("d2.qcow2", "t2.qcow2"):
        run("qemu-img", "create", "-q", "-f", "qcow2", name, str(SIZE), directory=tmp_path)
    return tmp_path


def end(daemon, how):
    if how == "killed":
        daemon.kill()
    else:
        assert daemon.stop()[0] == 0


@pytest.mark.parametrize("how", ["killed", "ended"])
def test_jobs_that_conclude_together(disks, how):
    """They do so in the next daemon as well."""
    with Kept(disks, nodes=NODES) as daemon:
        begin_together(daemon)
        writer = Writer(disks, 1, pause=0.05)
        wait_for(lambda: left_in(disks) < SIZE - MIB)
        end(daemon, how)
        writer.join()
    with Kept(disks, nodes=NODES) as daemon:
        assert daemon.block_job()["len"] < SIZE - MIB
        wait_for(lambda: daemon.job("k")["status"] == "waiting")
        end(daemon, how)
    with Kept(disks, nodes=NODES) as daemon:
        wait_for(lambda: daemon.job("k")["status"] == "waiting")
        daemon.command("block-job-set-speed", device="j", speed=0)
        wait_for(lambda: daemon.command("query-jobs") == [])
        assert "continue" not in daemon.stop()[1]
    same(disks, "noise.raw", "t.qcow2")


def test_they_are_cancelled_together(disks):
    with Kept(disks, nodes=NODES) as daemon:
        begin_together(daemon, **{"auto-dismiss": False})
        daemon.kill()
    with Kept(disks, nodes=NODES) as daemon:
        wait_for(lambda: daemon.job("k")["status"] == "waiting")
        daemon.command("block-job-cancel", device="j")
        wait_for(lambda: daemon.job("k")["status"] == "concluded")
        assert daemon.job("k")["error"] == daemon.job("j")["error"] == "Operation canceled"
        daemon.kill()
    with Kept(disks, nodes=NODES) as daemon:
        # Where the file was not written since, nothing is left of them.
        for one in daemon.command("query-jobs"):
            wait_for(lambda: daemon.job(one["id"])["status"] == "concluded")


def test_none_goes_on_without_the_others(disks):
    with Kept(disks, nodes=NODES) as daemon:
        begin_together(daemon)
        daemon.kill()
    (disks / "t2.qcow2").rename(disks / "moved.qcow2")
    with Kept(disks, nodes=NODES[:3]) as daemon:
        for name in ("j", "k"):
            wait_for(lambda: daemon.job(name)["status"] == "concluded")
            assert "It cannot be continued: job 'k': " in daemon.job(name)["error"]
            assert "t2.qcow2' is not there any more" in daemon.job(name)["error"]
        # They have left nothing: the disk can be copied again.
        daemon.command("job-dismiss", id="j")
        begin(daemon, "blockdev-backup", target="t", sync="full")
        wait_for(lambda: daemon.job() is None)


def bitmap_of(daemon):
    nodes = daemon.command("query-named-block-nodes")
    found = next(one for one in nodes if one["node-name"] == "disk").get("dirty-bitmaps", [])
    return next((one for one in found if one.get("name") == "b"), None)


def begin_by_bitmap(directory, daemon, mode):
    """Eight of the sixteen MiB are to be copied."""
    add = {"node": "disk", "name": "b", "persistent": True, "granularity": 65536}
    daemon.command("block-dirty-bitmap-add", **add)
    io(directory, "write -P 3 0 8M")
    begin(
        daemon,
        "blockdev-backup",
        target="t",
        sync="bitmap",
        bitmap="b",
        bitmap__mode=mode,
        speed=2 * MIB,
    )
    # One place that is to be copied, one that is not.
    io(directory, "write -P 4 7M 64k", "write -P 4 10M 64k")
    wait_for(lambda: left_in(directory) < 7 * MIB)


def check_copy(directory):
    words = ["-c", "read -P 3 0 8M", "-c", "read -P 0 8M 8M"]
    assert "failed" not in run("qemu-io", "-f", "qcow2", *words, directory / "t.qcow2")


def test_a_backup_by_a_bitmap_after_a_crash(disks):
    """It copies its moment; the bitmap missed what was written, and is not touched; nor is another one that is made
    in its place meanwhile."""
    with Kept(disks) as daemon:
        begin_by_bitmap(disks, daemon, "on-success")
        daemon.kill()
    # The bitmap of a daemon that has ended in order is in the image: it gets useless when this one is killed.
    with Kept(disks) as daemon:
        assert daemon.block_job()["len"] < 7 * MIB
        assert bitmap_of(daemon) is None or bitmap_of(daemon)["inconsistent"]
        if bitmap_of(daemon):
            daemon.command("block-dirty-bitmap-remove", node="disk", name="b")
        daemon.command("block-dirty-bitmap-add", node="disk", name="b", persistent=True)
        io(disks, "write -P 5 1M 64k", "write -P 5 12M 64k")
        code, said = daemon.stop()
        assert code == 0 and "continues without the bitmap 'b' of 'disk'" in said
        assert "make the next backup a full one, with a new bitmap" in said
    with Kept(disks) as daemon:
        daemon.command("block-job-set-speed", device="j", speed=0)
        wait_for(lambda: daemon.job() is None)
        assert bitmap_of(daemon)["count"] == 2 * 65536
        assert "continues without" not in daemon.stop()[1]
    check_copy(disks)


@pytest.mark.parametrize("mode", ["on-success", "never"])
def test_a_backup_by_a_bitmap_after_an_orderly_end(disks, mode):
    """The bitmap marks in the end what was written since the backup began, in all daemons; and with "never" also what
    it marked before. Where the second one is killed it is of no use."""
    with Kept(disks) as daemon:
        begin_by_bitmap(disks, daemon, mode)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(timeout=LIMIT) == 0
    with Kept(disks) as daemon:
        assert bitmap_of(daemon)["busy"] and daemon.block_job()["len"] < 7 * MIB
        io(disks, "write -P 5 1M 64k", "write -P 5 12M 64k")
        daemon.command("block-job-set-speed", device="j", speed=0)
        wait_for(lambda: daemon.job() is None)
        blocks = 4 if mode == "on-success" else 128 + 2
        assert bitmap_of(daemon)["count"] == blocks * 65536
        assert daemon.stop()[0] == 0
    check_copy(disks)


def test_an_image_that_was_being_made(tmp_path):
    """Nobody knows whether it is whole, or in use: it is said what to do."""
    (tmp_path / "i.raw").touch()
    node = "throttle,node-name=i,throttle-group=g,file.driver=file,file.filename=i.raw"
    words = ["--object", "throttle-group,id=g,x-bps-write=1000", "--blockdev", node]
    with Kept(tmp_path, *words, nodes=(), export=False) as daemon:
        options = {"driver": "qcow2", "file": "i", "size": SIZE}
        daemon.command("blockdev-create", job__id="j", options=options)
        wait_for(lambda: b'"id": "j"' in (tmp_path / "jobs").read_bytes())
        daemon.kill()
    with Kept(tmp_path, nodes=(), export=False) as daemon:
        wait_for(lambda: daemon.job()["status"] == "concluded")
        assert "where nothing uses it yet, begin the job again" in daemon.job()["error"]
