"""Files of real NFS servers, by versions 3 and 4, and of a server that misbehaves."""
# Packages: nfs-ganesha nfs-ganesha-vfs libnfs13 rpcbind iproute2
import json
import os
import random
import signal
import subprocess
import time

import pytest

from conftest import CAIRN, Result, allow_leaks_of, call, sparse_disk
from support.failing_convert import check_failing_convert
from support.ganesha import Ganesha
from support.odd_nfs import READ, OddNfs
from support.qmp import create_over_stdio

pytestmark = pytest.mark.any_engine


@pytest.fixture(autouse=True)
def leaks_of_the_library(tmp_path, monkeypatch):
    """libnfs 4.0 keeps the name of each file that it opened by version 4."""
    allow_leaks_of("libnfs.so", tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    one = Ganesha(tmp_path_factory.mktemp("ganesha"))
    yield one
    one.stop()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A server of versions 3 and 4 with a port mapper, which QEMU needs, in its own network."""
    one = Ganesha(tmp_path_factory.mktemp("both"), port_mapper=True)
    yield one
    one.stop()


def test_every_byte(server, folder, cairn):
    """By version 4: copied there and back, and written in odd pieces."""
    sparse_disk("disk.raw", 9 << 20, seed=3, pieces=60)
    there = server.export / "bytes.raw"
    cairn("convert", "-O", "raw", "disk.raw", server.url("bytes.raw"))
    assert there.read_bytes() == (folder / "disk.raw").read_bytes()
    assert there.stat().st_mode & 0o777 == 0o600
    cairn("convert", "-f", "raw", "-O", "raw", server.url("bytes.raw"), "back.raw")
    assert (folder / "back.raw").read_bytes() == there.read_bytes()
    cairn(
        "io",
        "-f",
        "raw",
        *("-c", "write -P 7 10 1000"),
        *("-c", "write -P 8 4097 70001"),
        *("-c", "write -z 1M 2M"),
        *("-c", "discard 4M 1M"),
        *("-c", "flush"),
        *("-c", "read -P 7 10 1000"),
        *("-c", "read -P 8 4097 70001"),
        *("-c", "read -P 0 1M 2M"),
        server.url("bytes.raw"),
    )
    data = there.read_bytes()
    assert data[10:1010] == b"\7" * 1000 and data[4097:74098] == b"\10" * 70001
    assert data[1 << 20 : 3 << 20] == bytes(2 << 20)


def test_images(server, folder, cairn):
    """An image with a backing file beside it, whose name keeps the parameters; grown, shrunk, checked."""
    cairn("create", "-f", "qcow2", server.url("base.qcow2"), "8M")
    cairn("io", "-c", "write -P 5 0 1M", server.url("base.qcow2"))
    cairn("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", server.url("over.qcow2"))
    cairn("io", "-c", "write -P 6 1M 1M", "-c", "read -P 5 0 1M", server.url("over.qcow2"))
    assert "No errors" in cairn("check", server.url("over.qcow2")).out
    cairn("resize", server.url("over.qcow2"), "16M")
    cairn("convert", "-O", "raw", server.url("over.qcow2"), "flat.raw")
    data = (folder / "flat.raw").read_bytes()
    assert data == b"\5" * (1 << 20) + b"\6" * (1 << 20) + bytes(14 << 20)
    cairn("create", "-f", "raw", server.url("size.raw"), "1M")
    refused = cairn("create", "-f", "raw", server.url("size.raw"), "2M", ok=False)
    assert refused.code == 1 and "exists already" in refused.err
    cairn("create", "-f", "raw", "--overwrite", server.url("size.raw"), "2M")
    cairn("resize", "-f", "raw", server.url("size.raw"), "3M")
    assert (server.export / "size.raw").stat().st_size == 3 << 20
    cairn("resize", "-f", "raw", "--shrink", server.url("size.raw"), "1000000")
    assert (server.export / "size.raw").stat().st_size == 1000000
    failed = cairn(
        "resize", "-f", "raw", "--preallocation=full", server.url("size.raw"), "4M", ok=False
    )
    assert failed.code == 1 and "Unsupported preallocation mode 'full'" in failed.err


def test_a_failed_conversion(server, folder, cairn):
    check_failing_convert(cairn, folder, server.url, server.export)


def test_served(server, folder, cairn):
    """A file of the server as an NBD export."""
    (server.export / "served.raw").write_bytes(random.Random(5).randbytes(3 << 20))
    os.mkdir("s")
    job = subprocess.Popen(
        [CAIRN, "serve", "-f", "raw", "--socket", "s/nbd", server.url("served.raw")],
        stdout=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 30
        while not os.path.exists("s/nbd"):
            assert job.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        cairn("convert", "-f", "raw", "-O", "raw", "nbd+unix:///?socket=s/nbd", "out.raw")
    finally:
        job.terminate()
        job.wait(timeout=20)
    assert (folder / "out.raw").read_bytes() == (server.export / "served.raw").read_bytes()


def test_a_lease_is_kept(server, cairn):
    """A server of version 4 forgets clients that do nothing for six seconds here."""
    cairn("create", "-f", "raw", server.url("lease.raw"), "1M")
    said = cairn(
        "io", "-f", "raw", "-c", "sleep 9000", "-c", "write -P 3 0 64k", server.url("lease.raw")
    )
    assert "wrote 65536" in said.out
    assert (server.export / "lease.raw").read_bytes()[:65536] == b"\3" * 65536


def test_the_server_starts_anew(tmp_path_factory, folder, cairn):
    """Reads go on in new sessions, also where the server has forgotten what was open."""
    one = Ganesha(tmp_path_factory.mktemp("anew"))
    try:
        (one.export / "disk.raw").write_bytes(random.Random(2).randbytes(24 << 20))
        job = subprocess.Popen(
            [
                CAIRN,
                "convert",
                "-f",
                "raw",
                "-O",
                "raw",
                "-r",
                "8M",
                one.url("disk.raw"),
                "out.raw",
            ],
            # libnfs keeps a file of version 4 that is lost.
            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
            stderr=subprocess.PIPE,
            text=True,
        )
        until = time.monotonic() + 30
        while not (os.path.exists("out.raw") and os.stat("out.raw").st_blocks > 4096):
            assert job.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        one.stop(signal.SIGKILL)
        one.start()
        _, said = job.communicate(timeout=60)
        assert job.returncode == 0, said
        assert (folder / "out.raw").read_bytes() == (one.export / "disk.raw").read_bytes()
    finally:
        one.stop()


def within(both, tool):
    def run(*words, ok=True, **more):
        done = subprocess.run(
            both.inside(tool, *words), capture_output=True, text=True, timeout=60, **more
        )
        assert not ok or done.returncode == 0, (words, done.stdout, done.stderr)
        return Result(done)

    return run


def test_as_the_real_one(both, folder):
    """By version 3, found by its port mapper: word for word."""
    ours = within(both, CAIRN.parent / "compat" / "qemu-img")
    qemu = within(both, "qemu-img")
    disk, path = both.export / "disk.raw", both.export
    sparse_disk(disk, 8 << 20, seed=4)
    server = "driver=nfs,server.type=inet,server.host=127.0.0.1"
    (both.export / "base.qcow2").unlink(missing_ok=True)
    ours("create", "-f", "qcow2", both.url("base.qcow2"), "4M")
    for words in (
        ["info", both.url("disk.raw")],
        ["info", "--output=json", both.url("base.qcow2")],
        ["info", both.url("disk.raw?uid=0&gid=0&tcp-syncnt=3&readahead=40960000")],
        ["info", both.url("disk.raw?pagecache=100&uid")],
        ["info", "--image-opts", f"{server},path={path}/disk.raw,user=0,group=0"],
        ["map", "--output=json", "-f", "raw", both.url("disk.raw")],
        ["create", "-f", "raw", both.url("new.raw"), "1000"],
        ["resize", "-f", "raw", both.url("new.raw"), "2M"],
        ["resize", "-f", "raw", "--shrink", both.url("new.raw"), "1M"],
        ["check", both.url("base.qcow2")],
    ):
        theirs, mine = qemu(*words), ours(*words)
        assert (mine.out, mine.err) == (theirs.out, theirs.err)
    for words in (
        ["info", both.url("none.raw")],
        ["info", f"nfs://127.0.0.1{path}/none/a.raw"],
        ["info", "nfs:///a/b"],
        ["info", "nfs://h"],
        ["info", "nfs:foo"],
        ["info", "nfs://h:99/a/b?foo=1"],
        ["info", "nfs://h/a/b?uid=x"],
        ["info", "--image-opts", "driver=nfs,path=/a/b"],
        ["info", "--image-opts", f"driver=nfs,server.host=127.0.0.1,path={path}/disk.raw"],
        ["info", "--image-opts", f"driver=nfs,server.type=inet,path={path}/disk.raw"],
        ["info", "--image-opts", "driver=nfs,server.type=unix,server.host=h,path=/a/b"],
        ["info", "--image-opts", server],
        ["info", "--image-opts", f"{server},path=a.raw"],
        ["create", "-f", "raw", "-o", "preallocation=full", both.url("n.raw"), "1M"],
        ["resize", "-f", "raw", "--preallocation=full", both.url("new.raw"), "3M"],
    ):
        theirs, mine = qemu(*words, ok=False), ours(*words, ok=False)
        assert (mine.code, mine.out, mine.err.splitlines()[0]) == (
            theirs.code,
            theirs.out,
            theirs.err.splitlines()[0],
        )
    io = within(both, CAIRN.parent / "compat" / "qemu-io")
    for parameter in "readahead=4096", "pagecache=4":
        url = both.url(f"disk.raw?{parameter}")
        refused = io("-t", "none", "-f", "raw", "-c", "read 0 1k", url, ok=False)
        assert refused.code == 1 and "if cache.direct = on" in refused.err


def test_version_3(both, folder):
    """There and back; what the users' numbers may do; QEMU reads what we wrote, and the other way round."""
    cairn, qemu = within(both, CAIRN), within(both, "qemu-img")
    sparse_disk("disk.raw", 9 << 20, seed=8, pieces=60)
    cairn("convert", "-O", "qcow2", folder / "disk.raw", both.url("ours.qcow2"))
    qemu("convert", "-O", "raw", both.url("ours.qcow2"), folder / "theirs.raw")
    assert (folder / "theirs.raw").read_bytes() == (folder / "disk.raw").read_bytes()
    qemu("convert", "-O", "qcow2", folder / "disk.raw", both.url("theirs.qcow2"))
    cairn("compare", folder / "disk.raw", both.url("theirs.qcow2"))
    (both.export / "private.raw").write_bytes(bytes(4096))
    os.chmod(both.export / "private.raw", 0o600)
    for more in "", "?readahead=1048576&pagecache=64":
        cairn("compare", folder / "disk.raw", both.url("theirs.qcow2" + more))
    refused = cairn("info", both.url("private.raw?uid=1234&gid=1234"), ok=False)
    assert refused.code == 1 and "ACCES" in refused.err
    # Without a port mapper there is a reason.
    alone = call(CAIRN, "info", "nfs://127.0.0.1:1/exp/a", ok=False)
    assert alone.code == 1 and "Failed to connect to '127.0.0.1:111'" in alone.err
    assert "version=4" in alone.err
    nowhere = call(CAIRN, "info", "nfs://host.invalid/exp/a", ok=False)
    assert "address resolution failed" in nowhere.err and "version=4" not in nowhere.err


DATA = random.Random(1).randbytes(3 << 20)
# What the server does, and words of the error; no words: every byte arrives.
READING = {
    "good": "",
    "short": "",
    "repeats": "",
    "reversed": "",
    "fragments": "",
    "slow": "",
    "much_room": "",
    "dies_once": "",
    "later": "",
    "other_xid": "does not answer",
    "stalls": "does not answer",
    "denied": "not accepted",
    "cut_record": "the connection was lost",
    "long_record": "the connection was lost",
    "noise": "the connection was lost",
    "dies": "the connection was lost",
    "fails": "NFS3ERR_IO",
    "stale": "NFS3ERR_STALE",
    "empty": "before its size",
    "shrunk": "before its size",
    "more": "more than was asked for",
    "count_lies": "and sent 4",
    "length_lies": "and sent 2147483632",
    "huge": "a size of 18446744073709551615 bytes",
    "directory": "no regular file",
    "replaced": "the file changed on the server",
    "no_room": "max rsize of 0",
    "mount_denied": "MNT3ERR_ACCES",
    "mute_mount": "does not answer",
    "long_handle": "Failed to mount nfs share",
}
WRITING = {
    "good": "",
    "writes_less": "",
    "write_dies": "",
    "full": "No space left on device",
    "writes_nothing": "the server wrote nothing",
    "writes_more": "more than was asked for",
    "commit_fails": "NFS3ERR_IO",
    "forgets": "may have lost what was written",
}


@pytest.fixture
def odd(folder):
    made = []

    def start(behaviour):
        (folder / "there.raw").write_bytes(DATA)
        made.append(OddNfs(folder / "there.raw", behaviour))
        described = {"driver": "nfs", "server": {"type": "inet", "host": "127.0.0.1"}}
        described |= {"path": "/exp/disk", "timeout": 3}
        described |= {"nfsport": made[-1].port, "mountport": made[-1].port}
        return made[-1], "json:" + json.dumps({"driver": "raw", "file": described})

    yield start
    for each in made:
        each.stop()


def run_small(*words):
    """Runs cairn and sees that it stays small."""
    done = subprocess.run(
        ["/usr/bin/time", "-q", "-o", "memory", "-f", "%M", CAIRN, *words],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "asan" not in str(CAIRN):
        assert int(open("memory").read().split()[-1]) < 64 << 10
    assert done.returncode in (0, 1), done.stderr
    return done


@pytest.mark.parametrize("behaviour", READING)
def test_a_server_that_misbehaves(odd, folder, behaviour):
    _, name = odd(behaviour)
    done = run_small("convert", "-f", "raw", "-O", "raw", name, "out.raw")
    assert READING[behaviour] in done.stderr
    assert (done.returncode == 0) == (READING[behaviour] == ""), done.stderr
    if done.returncode == 0:
        assert (folder / "out.raw").read_bytes() == DATA


@pytest.mark.parametrize("behaviour", WRITING)
def test_a_server_that_misbehaves_at_writes(odd, folder, behaviour):
    _, name = odd(behaviour)
    (folder / "source.raw").write_bytes(DATA[::-1])
    done = run_small("convert", "-n", "-f", "raw", "-O", "raw", "source.raw", name)
    assert WRITING[behaviour] in done.stderr
    assert (done.returncode == 0) == (WRITING[behaviour] == ""), done.stderr
    if done.returncode == 0:
        assert (folder / "there.raw").read_bytes() == DATA[::-1]


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("behaviour", ["stalls", "mute_mount"])
def test_interrupted(odd, folder, behaviour, which):
    one, name = odd(behaviour)
    job = subprocess.Popen(
        [
            CAIRN,
            "convert",
            "-f",
            "raw",
            "-O",
            "raw",
            name.replace('"timeout": 3', '"timeout": 50'),
            "o",
        ],
        stderr=subprocess.PIPE,
    )
    until = time.monotonic() + 30
    while one.turns.get(READ, 0) < 3 and not one.mounts:
        assert job.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    begun = time.monotonic()
    job.send_signal(which)
    said = job.communicate(timeout=30)[1]
    assert job.returncode == 128 + which, said
    assert time.monotonic() - begun < 3


def test_refused(odd, cairn, server):
    """Where servers are not to be reached, where nobody listens, and what is no option of ours."""
    one, _ = odd("good")
    assert cairn("info", "--untrusted", one.url(), ok=False).code == 1 and one.turns == {}
    one.stop()
    gone = cairn("info", one.url(), ok=False)
    assert gone.code == 1 and f"Failed to connect to '127.0.0.1:{one.port}'" in gone.err
    for more, words in (
        ("&foo=1", "Unknown NFS parameter name: foo"),
        ("&uid=x", "Invalid value for NFS parameter: uid"),
        ("&version=2", "'version' must be between 3 and 4"),
    ):
        failed = cairn("info", server.url("x", more), ok=False)
        assert failed.code == 1 and words in failed.err


def test_made_by_the_daemon(both, folder):
    for program in (CAIRN.parent / "compat/qemu-storage-daemon", "qemu-storage-daemon"):
        # The server remembers files that were removed without it.
        made = both.export / f"made-{len(str(program))}.raw"
        location = {"server": {"type": "inet", "host": "127.0.0.1"}, "path": str(made)}
        command = both.inside(program)
        assert create_over_stdio(command, driver="nfs", location=location, size=5000 * 512) is None
        assert made.stat().st_size == 5000 * 512
