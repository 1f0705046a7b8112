"""Jobs go on in the successor of a daemon: nothing is copied twice that need not be, and every result is right."""
import random
import subprocess
import threading

import pytest
from conftest import CAIRN
from qmp import LIMIT, wait_for
from test_restart import DISK, EXPORT, SERVER, Restarted, image, io, write_meanwhile

SIZE = 32 << 20


def noise(path, size=SIZE):
    path.write_bytes(random.Random(7).randbytes(size))


def same(one, other):
    done = subprocess.run(
        [CAIRN, "compare", one, other], capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def disks(tmp_path):
    """A daemon with a disk full of noise over nothing, and an empty one of the same size."""
    noise(tmp_path / "noise.raw")
    make = ["qemu-img", "convert", "-O", "qcow2", "noise.raw", "d.qcow2"]
    subprocess.run(make, cwd=tmp_path, check=True, timeout=LIMIT)
    image(tmp_path / "t.qcow2", size=SIZE)
    words = [*DISK, *SERVER, *EXPORT]
    words += ["--blockdev", "qcow2,node-name=t,file.driver=file,file.filename=t.qcow2"]
    with Restarted(*words, directory=tmp_path) as daemon:
        yield daemon


def job(daemon, name="j"):
    client = daemon.client()
    try:
        found = [one for one in client.command("query-block-jobs") if one["device"] == name]
        return found[0] if found else None
    finally:
        client.close()


def command(daemon, name, /, **arguments):
    client = daemon.client()
    try:
        return client.command(name, **arguments)
    finally:
        client.close()


def test_a_mirror_goes_on(disks, tmp_path):
    begun = {"job__id": "j", "device": "disk", "target": "t", "sync": "full", "speed": 4 << 20}
    command(disks, "blockdev-mirror", **begun)
    wait_for(lambda: job(disks)["offset"] >= 4 << 20)
    copied = job(disks)["offset"]
    disks.restart()
    after = job(disks)
    assert after["speed"] == 4 << 20 and after["len"] <= SIZE - copied + (4 << 20)
    io(tmp_path, "write -P 1 1M 64k", "write -P 2 30M 64k")
    command(disks, "job-pause", id="j")
    disks.restart()
    assert job(disks)["paused"]
    command(disks, "job-resume", id="j")
    command(disks, "block-job-set-speed", device="j", speed=0)
    wait_for(lambda: job(disks)["ready"])
    io(tmp_path, "write -P 3 9M 64k")
    disks.restart()
    wait_for(lambda: job(disks)["ready"])
    assert job(disks)["len"] <= 4 << 20
    io(tmp_path, "write -P 4 10M 64k")
    command(disks, "job-complete", id="j")
    wait_for(lambda: job(disks) is None)
    # The clients have the copy now, also after another restart.
    io(tmp_path, "write -P 5 11M 64k")
    disks.restart()
    reads = ["read -P 1 1M 64k", "read -P 2 30M 64k", "read -P 3 9M 64k", "read -P 4 10M 64k"]
    io(tmp_path, *reads, "read -P 5 11M 64k")
    assert command(disks, "query-block-exports")[0]["node-name"] == "t"
    disks.stop()
    with (tmp_path / "noise.raw").open("r+b") as file:
        for place, value in ((1, 1), (30, 2), (9, 3), (10, 4), (11, 5)):
            file.seek(place << 20)
            file.write(bytes([value]) * 65536)
    same(tmp_path / "noise.raw", tmp_path / "t.qcow2")


def test_a_backup_keeps_its_moment(disks, tmp_path):
    begun = {"job__id": "j", "device": "disk", "target": "t", "sync": "full", "speed": 4 << 20}
    io(tmp_path, "write -P 1 20M 64k")
    with (tmp_path / "noise.raw").open("r+b") as file:
        file.seek(20 << 20)
        file.write(b"\1" * 65536)
    command(disks, "blockdev-backup", **begun)
    for turn in range(3):
        io(tmp_path, f"write -P {turn + 2} {turn}M 64k", f"write -P 9 {29 + turn}M 64k")
        disks.restart()
        io(tmp_path, "write -P 9 20M 64k", f"write -P 8 {15 + turn}M 128k")
    command(disks, "block-job-set-speed", device="j", speed=0)
    wait_for(lambda: job(disks) is None)
    disks.stop()
    same(tmp_path / "noise.raw", tmp_path / "t.qcow2")


@pytest.mark.parametrize("what", ["drive-mirror", "drive-backup", "transaction"])
def test_jobs_that_have_made_their_target_go_on(disks, tmp_path, what):
    begun = {"job__id": "j", "device": "disk", "sync": "full", "speed": 4 << 20}
    made = {"target": "x.qcow2", "format": "qcow2"}
    if what == "transaction":
        data = {key.replace("__", "-"): value for key, value in (begun | made).items()}
        command(disks, what, actions=[{"type": "drive-backup", "data": data}])
    else:
        command(disks, what, **begun, **made)
    wait_for(lambda: job(disks)["offset"] >= 4 << 20)
    disks.restart()
    assert job(disks)["len"] < SIZE
    disks.restart()
    command(disks, "block-job-set-speed", device="j", speed=0)
    if what == "drive-mirror":
        wait_for(lambda: job(disks)["ready"])
        command(disks, "block-job-cancel", device="j")
    wait_for(lambda: job(disks) is None)
    disks.stop()
    same(tmp_path / "noise.raw", tmp_path / "x.qcow2")


def test_jobs_that_conclude_together_go_on(disks, tmp_path):
    """One that waits for the other does so in the successor."""
    for name in ("zero", "z"):
        node = {"driver": "null-co", "node-name": name, "size": SIZE, "read-zeroes": True}
        command(disks, "blockdev-add", **node)
    data = [
        {"job-id": "j", "device": "disk", "target": "t", "sync": "full", "speed": 4 << 20},
        {"job-id": "k", "device": "zero", "target": "z", "sync": "full"},
    ]
    actions = [{"type": "blockdev-backup", "data": one} for one in data]
    together = {"completion-mode": "grouped"}
    command(disks, "transaction", actions=actions, properties=together)
    for _ in range(2):
        wait_for(lambda: [one["status"] for one in command(disks, "query-jobs")][0] == "waiting")
        wait_for(lambda: job(disks)["offset"] >= 2 << 20)
        disks.restart()
        assert job(disks)["len"] < SIZE
    command(disks, "block-job-set-speed", device="j", speed=0)
    wait_for(lambda: command(disks, "query-jobs") == [])
    disks.stop()
    same(tmp_path / "noise.raw", tmp_path / "t.qcow2")


@pytest.mark.parametrize("persistent", [True, False])
def test_a_backup_by_a_bitmap_goes_on(disks, tmp_path, persistent):
    """It copies what the bitmap marked when it began, which marks afterwards what was written since."""
    command(
        disks,
        "block-dirty-bitmap-add",
        node="disk",
        name="b",
        persistent=persistent,
        granularity=65536,
    )
    io(tmp_path, "write -P 1 8M 8M")
    begun = {"job__id": "j", "device": "disk", "target": "t", "sync": "incremental"}
    command(disks, "blockdev-backup", **begun, bitmap="b", speed=2 << 20)
    io(tmp_path, "write -P 2 15M 64k", "write -P 2 20M 64k")
    wait_for(lambda: job(disks)["offset"] >= 2 << 20)
    disks.restart()
    assert job(disks)["len"] < 8 << 20
    io(tmp_path, "write -P 3 14M 64k", "write -P 3 21M 64k")
    disks.restart()
    command(disks, "block-job-set-speed", device="j", speed=0)
    wait_for(lambda: job(disks) is None)
    node = [one for one in command(disks, "query-named-block-nodes") if one["node-name"] == "disk"]
    assert node[0]["dirty-bitmaps"][0]["count"] == 4 * 65536
    disks.stop()
    reads = ["-c", "read -P 1 8M 8M", "-c", "read -P 0 20M 2M"]
    done = subprocess.run(
        ["qemu-io", "-f", "qcow2", *reads, tmp_path / "t.qcow2"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "failed" not in done.stdout, done.stdout


@pytest.mark.parametrize("what", ["stream", "commit", "active"])
def test_chains_are_shortened(tmp_path, what):
    noise(tmp_path / "base.raw")
    base = tmp_path / "base.raw"
    image(tmp_path / "mid.qcow2", "-F", "raw", "-b", str(base), size=SIZE)
    image(tmp_path / "d.qcow2", "-F", "qcow2", "-b", str(tmp_path / "mid.qcow2"), size=SIZE)
    fill = [CAIRN, "io", "-c", "write -P 6 4M 12M", tmp_path / "mid.qcow2"]
    subprocess.run(fill, check=True, timeout=LIMIT, capture_output=True)
    with (tmp_path / "want.raw").open("wb") as file:
        file.write(base.read_bytes())
        file.seek(4 << 20)
        file.write(b"\6" * (12 << 20))
        file.seek(20 << 20)
        file.write(b"\7" * 65536)
    words = ["--blockdev", "file,node-name=bf,filename=base.raw"]
    words += ["--blockdev", "raw,node-name=base,file=bf"]
    words += [
        "--blockdev",
        "qcow2,node-name=mid,backing=base,file.driver=file,file.filename=mid.qcow2",
    ]
    words += [
        "--blockdev",
        "qcow2,node-name=disk,backing=mid,file.driver=file,file.filename=d.qcow2",
    ]
    with Restarted(*words, *SERVER, *EXPORT, directory=tmp_path) as daemon:
        begun = {"job__id": "j", "device": "disk", "speed": 4 << 20}
        if what == "stream":
            command(daemon, "block-stream", **begun)
        elif what == "commit":
            command(daemon, "block-commit", top__node="mid", base__node="base", **begun)
        else:
            command(daemon, "block-commit", base__node="base", **begun)
        io(tmp_path, "write -P 7 20M 64k")
        wait_for(lambda: job(daemon)["offset"] >= 2 << 20)
        daemon.restart()
        assert job(daemon)["type"] == ("stream" if what == "stream" else "commit")
        command(daemon, "block-job-set-speed", device="j", speed=0)
        if what == "active":
            wait_for(lambda: job(daemon)["ready"])
            command(daemon, "job-complete", id="j")
        wait_for(lambda: job(daemon) is None)
        io(tmp_path, "read -P 6 4M 12M", "read -P 7 20M 64k")
        daemon.stop()
    result = base if what == "active" else tmp_path / "d.qcow2"
    same(tmp_path / "want.raw", result)


def test_writes_all_the_time(disks, tmp_path):
    """Somebody writes while the daemon is restarted again and again under a mirror."""
    begun = {"job__id": "j", "device": "disk", "target": "t", "sync": "full", "speed": 16 << 20}
    command(disks, "blockdev-mirror", **begun)
    write_meanwhile(disks, "-c", "12000", "-s", "4096", "-S", "69632")
    command(disks, "block-job-set-speed", device="j", speed=0)
    wait_for(lambda: job(disks)["ready"])
    client = disks.client()
    client.command("block-job-cancel", device="j")
    wait_for(lambda: client.command("query-block-jobs") == [])
    client.close()
    disks.stop()
    same(tmp_path / "d.qcow2", tmp_path / "t.qcow2")
