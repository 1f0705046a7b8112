"""Images of a real Ceph cluster, of one monitor and one OSD."""
# Packages: ceph-mon ceph-osd ceph-common python3-rados python3-rbd librbd1 libnbd-bin
import json
import os
import re
import signal
import subprocess
import time

import pytest
import rbd

from conftest import CAIRN, line_with, sparse_disk
from support.ceph import shared_ceph, wait_for
from support.qmp import create_over_stdio

# What a cluster may do wrong is tried with every build elsewhere.
pytestmark = [pytest.mark.any_engine, pytest.mark.slow]
SIZE = 64 << 20


@pytest.fixture(scope="module")
def ceph(tmp_path_factory):
    with shared_ceph(tmp_path_factory) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def environment(ceph, folder, monkeypatch):
    monkeypatch.setenv("CEPH_CONF", str(ceph.conf))


@pytest.fixture
def image(ceph, request):
    """The name of a new image of 64 MiB."""
    name = re.sub(r"\W", "_", request.node.name)
    ceph.make_image(name, SIZE)
    return name


def described(image, **options):
    file = {"driver": "rbd", "pool": "rbd", "image": image, **options}
    return "json:" + json.dumps({"driver": "raw", "file": file})


def secret(name, text):
    return ["--object", f"secret,id={name},data={text}"]


def content(ceph, image):
    with ceph.pool() as pool, rbd.Image(pool, image, read_only=True) as opened:
        return opened.read(0, opened.size())


def fill(ceph, image, *pieces):
    """Writes (offset, bytes) into an image."""
    with ceph.pool() as pool, rbd.Image(pool, image) as opened:
        for offset, data in pieces:
            opened.write(data, offset)


def test_as_the_real_one(ceph, image, ours, qemu):
    fill(ceph, image, (0, b"a" * 4096), (20 << 20, b"b" * 100))
    with ceph.pool() as pool, rbd.Image(pool, image) as opened:
        opened.create_snap("s1")
    names = [
        f"rbd:rbd/{image}",
        f"rbd:rbd/{image}@s1",
        f"rbd:rbd/{image}:id=admin:conf={ceph.conf}:rbd_cache=true",
        f"json:" + json.dumps({"driver": "rbd", "pool": "rbd", "image": image}),
    ]
    for words in (
        ["info"],
        ["info", "--output=json"],
        ["map", "--output=json"],
        ["snapshot", "-l"],
    ):
        for name in names:
            assert ours(*words, name).out == qemu(*words, name).out, (words, name)


def test_errors_as_the_real_ones(ceph, image, ours, qemu):
    objects = [*secret("s", "c2VjcmV0"), *secret("short", "x")]
    for name in (
        "rbd:",
        "rbd:rbd",
        "rbd:rbd/",
        "rbd:rbd/none",
        "rbd:nopool/x",
        f"rbd:rbd/{image}:word",
        f"rbd:rbd/{image}:what=x",
        f"rbd:rbd/{image}:conf=/none",
        f"rbd:rbd/{image}@none",
        f"rbd:rbd/{image}:id=nobody",
        f"rbd:rbd/{image}:key=xxx",
        f"rbd:rbd/nospace/{image}",
        'json:{"driver":"rbd"}',
        'json:{"driver":"rbd","pool":"rbd"}',
        described(image, **{"key-secret": "none"}),
        described(image, **{"key-secret": "short"}),
        described(image, server=[{"host": "127.0.0.1"}]),
        described(image, encrypt={"format": "luks2"}),
        described(image, encrypt={"format": "luks2", "key-secret": "none"}),
        described(image, encrypt={"format": "luks", "key-secret": "s"}),
        described(image, encrypt={"format": "x"}),
    ):
        theirs, mine = (tool("info", *objects, name, ok=False) for tool in (qemu, ours))
        assert mine.code == theirs.code == 1
        assert mine.err.splitlines()[0] == theirs.err.splitlines()[0]
    for words in (
        ["-o", "cluster_size=3000", "rbd:rbd/new", "8M"],
        ["-o", "cluster_size=2k", "rbd:rbd/new", "8M"],
        ["-o", "preallocation=full", "rbd:rbd/new", "8M"],
        [f"rbd:rbd/{image}", "8M"],
        ["rbd:nopool/new", "8M"],
    ):
        theirs, mine = (tool("create", "-f", "raw", *words, ok=False) for tool in (qemu, ours))
        assert (mine.code, mine.out, mine.err) == (theirs.code, theirs.out, theirs.err)
    opened = ours("resize", "-f", "raw", f"rbd:rbd/{image}@s1", "+1M", ok=False)
    assert opened.code == 1 and "rbd snapshots are read-only" in opened.err


def test_data(ceph, image, cairn):
    """Every byte, in aligned and other pieces, both ways."""
    name = f"rbd:rbd/{image}"
    sparse_disk("disk.raw", SIZE, seed=3, pieces=60)
    data = bytearray(open("disk.raw", "rb").read())
    cairn("convert", "-n", "-O", "raw", "disk.raw", name)
    assert content(ceph, image) == data
    commands = [
        "write -P 7 10 1000",
        "write -P 8 4190000 70001",
        "write -z 9M 2M",
        "write -zu 16M 9M",
        "discard 32M 8M",
        "write -f -P 9 50M 64k",
        "flush",
    ]
    cairn("io", "-f", "raw", *[word for each in commands for word in ("-c", each)], name)
    data[10:1010] = b"\7" * 1000
    data[4190000:4260001] = b"\10" * 70001
    data[9 << 20 : 11 << 20] = bytes(2 << 20)
    data[16 << 20 : 25 << 20] = bytes(9 << 20)
    data[32 << 20 : 40 << 20] = bytes(8 << 20)
    data[50 << 20 : (50 << 20) + 65536] = b"\11" * 65536
    assert content(ceph, image) == data
    cairn("convert", "-O", "raw", name, "out.raw")
    assert open("out.raw", "rb").read() == data
    cairn("compare", "-f", "raw", "-F", "raw", "out.raw", name)


def test_create(ceph, cairn, qemu):
    cairn("create", "-f", "raw", "-o", "cluster_size=64k", "rbd:rbd/made", "5M")
    facts = qemu("info", "--output=json", "rbd:rbd/made").json()
    assert (facts["virtual-size"], facts["cluster-size"]) == (5 << 20, 65536)
    again = cairn("create", "-f", "raw", "rbd:rbd/made", "5M", ok=False)
    assert again.code == 1 and "File exists" in again.err


def test_a_copy_that_fails_leaves_nothing(ceph, folder, disk, cairn):
    (folder / "faults").write_text(
        '[inject-error]\nevent = "none"\nonce = "off"\nerrno = "5"\nsector = "4096"\n'
    )
    with open(disk, "r+b") as file:
        file.seek(2 << 20)
        file.write(b"x" * 512)
    source = f"driver=blkdebug,config=faults,image.driver=file,image.filename={disk}"
    words = ["convert", "--image-opts", "-O", "qcow2", source, "rbd:rbd/broken"]
    failed = cairn(*words, ok=False)
    assert failed.code == 1 and "Input/output error" in failed.err
    assert "The incomplete target 'rbd:rbd/broken' was removed." in failed.err
    assert cairn("info", "rbd:rbd/broken", ok=False).code == 1
    cairn("create", "-f", "raw", "rbd:rbd/broken", "1M")
    assert "removed" not in cairn(*words, ok=False).err
    cairn("info", "rbd:rbd/broken")


def test_formats(ceph, disk, cairn, qemu):
    """An image format in an image of the cluster, which grows, and an overlay on it."""
    cairn("convert", "-O", "qcow2", disk, "rbd:rbd/inner")
    qemu("check", "-f", "qcow2", "rbd:rbd/inner")
    cairn("compare", disk, "rbd:rbd/inner")
    cairn("create", "-f", "qcow2", "-b", "rbd:rbd/inner", "-F", "qcow2", "top.qcow2")
    cairn("io", "-c", "write -P 3 0 64k", "top.qcow2")
    cairn("commit", "top.qcow2")
    read = cairn("io", "-r", "-c", "read -P 3 0 64k", "rbd:rbd/inner")
    assert "failed" not in read.out
    qemu("check", "-f", "qcow2", "rbd:rbd/inner")
    assert "backing file: rbd:rbd/inner" in qemu("info", "--backing-chain", "top.qcow2").out


def test_luks_of_ours(ceph, cairn, qemu):
    words = [*secret("k", "pass"), "-f", "luks", "-o", "key-secret=k,iter-time=10"]
    cairn("create", *words, "rbd:rbd/luks", "8M")
    tree = {"driver": "luks", "key-secret": "k"}
    tree["file"] = {"driver": "rbd", "pool": "rbd", "image": "luks"}
    name = "json:" + json.dumps(tree)
    cairn("io", *secret("k", "pass"), "-c", "write -P 5 0 8M", name)
    assert b"\5" * 512 not in content(ceph, "luks")
    options = ",".join(f"file.{key}={value}" for key, value in tree["file"].items())
    compared = [
        "--image-opts",
        f"driver=luks,key-secret=k,{options}",
        f"driver=luks,key-secret=k,{options}",
    ]
    qemu("compare", *secret("k", "pass"), *compared)


@pytest.mark.parametrize("kind", ["luks", "luks2"])
def test_encrypted_by_the_library(ceph, cairn, qemu, kind):
    """Made by us, read by QEMU, and written back; 8 MiB, which is less than the header of LUKS2."""
    image, key = f"encrypted_{kind}", secret("s", "passphrase")
    options = f"encrypt.format={kind},encrypt.key-secret=s,encrypt.cipher-alg=aes-128"
    cairn("create", "-f", "raw", *key, "-o", options, f"rbd:rbd/{image}", "8M")
    name = described(image, encrypt={"format": kind, "key-secret": "s"})
    if kind == "luks":
        # Each opening takes seconds of work on the passphrase.
        container = cairn("info", "--output=json", "-f", "raw", f"rbd:rbd/{image}").json()
        inner = container["children"][0]["info"]["format-specific"]["data"]
        assert inner == {"encryption-format": kind} and container["virtual-size"] == 12 << 20
        return
    sparse_disk("disk.raw", 8 << 20, seed=5, pieces=9)
    cairn(
        "convert",
        "-n",
        *key,
        "--target-image-opts",
        "disk.raw",
        "driver=raw,"
        + ",".join(
            f"file.{each}"
            for each in (
                "driver=rbd",
                "pool=rbd",
                f"image={image}",
                f"encrypt.format={kind}",
                "encrypt.key-secret=s",
            )
        ),
    )
    qemu("convert", *key, "-O", "raw", name, "theirs.raw")
    data = open("disk.raw", "rb").read()
    assert open("theirs.raw", "rb").read() == data
    cairn("compare", *key, "-f", "raw", "-F", "raw", "disk.raw", name)
    raw = cairn("info", "--output=json", "-f", "raw", f"rbd:rbd/{image}").json()
    assert raw["virtual-size"] > 8 << 20
    inner = raw["children"][0]["info"]["format-specific"]["data"]
    assert inner == {"encryption-format": kind}
    wrong = cairn("info", *secret("s", "other"), name, ok=False)
    assert wrong.code == 1 and "encryption load fail: Operation not permitted" in wrong.err
    refused = cairn(
        "create",
        "-f",
        "raw",
        *key,
        "-o",
        options.replace(kind, "luks-any"),
        "rbd:rbd/any",
        "8M",
        ok=False,
    )
    assert refused.code == 1 and "luks-any is not supported" in refused.err


def test_names(ceph, cairn, monkeypatch):
    """Namespaces, odd characters, and all ways to say who connects where."""
    odd = "a:b=c@d"
    ceph.make_pool("other")
    with ceph.pool("other") as pool:
        rbd.RBD().namespace_create(pool, "space")
    with ceph.pool("other", "space") as pool:
        rbd.RBD().create(pool, odd, 1 << 20)
    escaped = r"rbd:other/space/a\:b\=c\@d"
    assert cairn("info", "--output=json", escaped).json()["virtual-size"] == 1 << 20
    options = {"pool": "other", "namespace": "space", "image": odd}
    assert cairn("info", "--output=json", described(**options)).json()["virtual-size"] == 1 << 20
    key = ceph.user("bob", mon="profile rbd", osd="profile rbd")
    keyring = ceph.root / "bob.keyring"
    keyring.write_text(f"[client.bob]\n\tkey = {key}\n")
    for extra in (f":id=bob:keyring={keyring}", rf":id=bob:key={key.replace('=', chr(92) + '=')}"):
        shown = cairn("info", escaped + extra)
        assert key not in shown.out + shown.err
    # Without any configuration file.
    monkeypatch.delenv("CEPH_CONF")
    host, port = re.search(r"v1:(127.0.0.1):(\d+)", ceph.conf.read_text()).groups()
    options |= {"user": "bob", "server": [{"host": host, "port": port}]}
    options |= {"timeout": 10, "key-secret": "k", "auth-client-required": ["cephx", "none"]}
    shown = cairn("info", *secret("k", key), described(**options))
    assert "1 MiB" in shown.out and key not in shown.out + shown.err
    raw = ["--object", f"secret,id=k,format=base64,data={key}"]
    cairn("info", *raw, described(**options))
    wrong = key[:-8] + ("A" if key[-8] != "A" else "B") + key[-7:]
    refused = cairn("info", *secret("k", wrong), described(**options), ok=False)
    assert refused.code == 1 and "error connecting" in refused.err and wrong not in refused.err
    # A monitor that has no time to refuse a key does not answer at all.
    told = "The user is client.bob; the key is that of the keyring" in refused.err
    assert told or "No monitor of the cluster answers" in refused.err
    monkeypatch.setenv("CEPH_ARGS", f"--conf {ceph.conf}")
    cairn("info", *secret("k", key), described(**options))


def test_a_key_in_a_name_is_warned_of(ceph, image, cairn):
    key = ceph.user("eve", mon="profile rbd", osd="profile rbd").replace("=", r"\=")
    said = cairn("info", f"rbd:rbd/{image}:id=eve:key={key}").err
    assert "use key-secret" in said


def test_snapshots(ceph, image, cairn, qemu):
    name = f"rbd:rbd/{image}"
    for number in 1, 2:
        cairn("io", "-f", "raw", "-c", f"write -P {number} 0 8M", name)
        cairn("snapshot", "-c", f"s{number}", name)
    cairn("io", "-f", "raw", "-c", "write -P 3 0 8M", name)
    for show in (f"{name}@s1", f"{name}@s2"):
        cairn("convert", "-O", "raw", show, show[-2:] + ".raw")
    assert (
        open("s1.raw", "rb").read(10) == b"\1" * 10 and open("s2.raw", "rb").read(10) == b"\2" * 10
    )
    cairn("convert", "-l", "snapshot.name=s1", "-O", "raw", name, "shown.raw")
    assert open("shown.raw", "rb").read() == open("s1.raw", "rb").read()
    listed = cairn("snapshot", "-l", "--output=json", name).json()
    rows = listed["snapshots"] if isinstance(listed, dict) else listed
    assert [each["name"] for each in rows] == ["s1", "s2"]
    assert all(abs(each["date-sec"] - time.time()) < 1000 for each in rows)
    cairn("resize", "-f", "raw", name, "96M")
    cairn("snapshot", "-a", "s1", name)
    assert content(ceph, image) == open("s1.raw", "rb").read()
    cairn("snapshot", "-d", "s1", name)
    missing = cairn("snapshot", "-d", "s1", name, ok=False)
    assert missing.code == 1 and "snapshot not found" in missing.err
    missing = cairn("snapshot", "-a", "s1", name, ok=False)
    assert missing.code == 1 and "No such file" in missing.err
    listed = qemu("snapshot", "-l", name).out
    assert "s2" in listed and "s1" not in listed


def data_ranges(cairn, name, *more):
    answer = cairn("map", "--output=json", "-f", "raw", *more, name).json()
    extents = answer if isinstance(answer, list) else answer["extents"]
    return [(each["start"] >> 20, each["length"] >> 20) for each in extents if each["data"]]


def test_extents(ceph, image, cairn):
    """Asked for once, in one question, and true under our own changes; with and without a map of objects; of a clone."""
    name = f"rbd:rbd/{image}"
    fill(ceph, image, (8 << 20, b"x" * (4 << 20)), (41 << 20, b"y"))
    assert data_ranges(cairn, name) == [(8, 4), (40, 4)]
    commands = ["map", "write -P 1 20M 1k", "write -zu 8M 4M", "discard 40M 4M", "map"]
    done = cairn("io", "-f", "raw", *[word for each in commands for word in ("-c", each)], name).out
    first, second = done[: done.index("wrote")], done[done.rindex("discard") :]
    assert len(re.findall(r"\ballocated", second)) <= len(re.findall(r"\ballocated", first)) + 3
    assert data_ranges(cairn, name) == [(20, 4)]
    ceph.make_image("plain", 16 << 20, features=rbd.RBD_FEATURE_LAYERING)
    fill(ceph, "plain", (4 << 20, b"z"))
    assert data_ranges(cairn, "rbd:rbd/plain") == [(4, 4)]
    with ceph.pool() as pool:
        with rbd.Image(pool, "plain") as parent:
            parent.create_snap("base")
            parent.protect_snap("base")
        rbd.RBD().clone(pool, "plain", "base", pool, "clone", features=rbd.RBD_FEATURE_LAYERING)
    cairn("io", "-f", "raw", "-c", "write -P 6 12M 1k", "rbd:rbd/clone")
    assert data_ranges(cairn, "rbd:rbd/clone") == [(4, 4), (12, 4)]
    cairn("convert", "-O", "raw", "rbd:rbd/clone", "clone.raw")
    assert open("clone.raw", "rb").read() == content(ceph, "clone")


def test_resize(ceph, image, cairn):
    name = f"rbd:rbd/{image}"
    fill(ceph, image, (20 << 20, b"x" * 100))
    cairn("resize", "-f", "raw", name, "100M")
    assert cairn("info", "--output=json", name).json()["virtual-size"] == 100 << 20
    cairn("resize", "-f", "raw", "--shrink", name, "10M")
    cairn("resize", "-f", "raw", name, "30M")
    assert content(ceph, image) == bytes(30 << 20)
    refused = cairn("resize", "-f", "raw", "--preallocation=full", name, "40M", ok=False)
    assert refused.code == 1 and "preallocation" in refused.err


class Shell:
    """A cairn io that has NAME open."""

    def __init__(self, *words):
        self.job = subprocess.Popen(
            [CAIRN, "io", "-f", "raw", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.say("read 0 512")
        self.wait_for("512")

    def say(self, line):
        self.job.stdin.write(line + "\n")
        self.job.stdin.flush()

    def wait_for(self, text):
        return line_with(self.job, text)

    def end(self):
        said, _ = self.job.communicate("quit\n", timeout=60)
        return said


def test_lock(ceph, image, cairn, ours):
    """A second writer is refused, readers are not; and neither is who does without."""
    name, free = f"rbd:rbd/{image}", "json:" + json.dumps(
        {"driver": "rbd", "pool": "rbd", "image": image, "lock": "off", "timeout": 5}
    )
    holder = Shell(name)
    refused = cairn("io", "-f", "raw", "-c", "write 0 4k", name, ok=False)
    assert refused.code == 1 and "Another client has the lock" in refused.err
    assert "It is 127.0.0.1" in refused.err and "lock=off" in refused.err
    cairn("info", name)
    cairn("io", "-r", "-f", "raw", "-c", "read 0 4k", name)
    # The lock is not given away to who takes none.
    failed = cairn("io", "-c", "write 0 4k", free, ok=False)
    assert "failed" in failed.out + failed.err
    holder.end()
    cairn("io", "-f", "raw", "-c", "write 0 4k", name)
    # Under the names of QEMU's tools the lock is given away, as there.
    cairn("io", "-c", "write 0 4k", free)


def test_served(ceph, image, cairn):
    fill(ceph, image, (1 << 20, b"served" * 1000))
    socket = os.path.abspath("socket")
    job = subprocess.Popen([CAIRN, "serve", "-f", "raw", "-k", socket, f"rbd:rbd/{image}"])
    try:
        wait_for(lambda: os.path.exists(socket), "the server")
        subprocess.run(
            ["nbdcopy", f"nbd+unix:///?socket={socket}", "copy.raw"], check=True, timeout=60
        )
    finally:
        job.send_signal(signal.SIGTERM)
        job.wait(timeout=30)
    assert open("copy.raw", "rb").read() == content(ceph, image)


# --- what goes wrong ---


@pytest.mark.parametrize("daemon", ["osd.0", "mon.a"])
def test_no_answer(ceph, image, cairn, daemon):
    """A daemon that is stopped: an error within the time that was given, while reading, writing and opening."""
    name = described(image, timeout=2)
    reader, writer = Shell(described(image, timeout=2, lock="off")), None
    with ceph.stopped(daemon):
        begun = time.monotonic()
        opened = cairn("info", name, ok=False, timeout=50)
        assert opened.code == 1 and "timed out" in opened.err and time.monotonic() - begun < 20
        if daemon == "osd.0":
            reader.say("read 4M 4k")
            assert "timed out" in reader.wait_for("read")
            reader.say("write 8M 4k")
            assert "timed out" in reader.wait_for("write")
            said = reader.end()
    if daemon == "mon.a":
        reader.say("read 4M 4k")
        reader.wait_for("read 4096/4096")
        reader.end()
    cairn("info", name)


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(ceph, image, which):
    name = f"rbd:rbd/{image}"
    fill(ceph, image, (0, b"x" * (32 << 20)))
    job = subprocess.Popen(
        [CAIRN, "convert", "-f", "raw", "-O", "raw", "-r", "2M", name, "out.raw"],
        stderr=subprocess.PIPE,
    )
    wait_for(lambda: os.path.exists("out.raw"), "the copy")
    with ceph.stopped():
        begun = time.monotonic()
        job.send_signal(which)
        job.communicate(timeout=30)
        assert job.returncode == 128 + which and time.monotonic() - begun < 5


def test_shrunk_by_another(ceph, image, cairn):
    """What is gone reads as zeroes, or there is an error; what is left is what it was."""
    fill(ceph, image, (0, b"x" * (64 << 20)))
    reader = Shell(described(image, lock="off"))
    with ceph.pool() as pool, rbd.Image(pool, image) as opened:
        opened.resize(1 << 20)
    reader.say("read -P 0 32M 4k")
    reader.wait_for("read")
    reader.say("read -P 120 0 1M")
    assert "1048576/1048576" in reader.wait_for("read")
    assert "verification failed" not in reader.end()
    assert cairn("info", "--output=json", described(image)).json()["virtual-size"] == 1 << 20


def test_removed_by_another(ceph, image, cairn):
    fill(ceph, image, (0, b"x" * (1 << 20)))
    with ceph.pool() as pool:
        with rbd.Image(pool, image) as opened:
            opened.create_snap("gone")
        reader = Shell("-r", f"rbd:rbd/{image}@gone")
        with rbd.Image(pool, image) as opened:
            opened.remove_snap("gone")
        reader.say("read -P 120 0 4k")
        line = reader.wait_for("read")
        # What was read is the right thing, or there is an error.
        assert "4096/4096" in line or "failed" in line
        reader.end()
        reader = Shell("-r", f"rbd:rbd/{image}")
        rbd.RBD().remove(pool, image)
        reader.say("flush")
        reader.say("read 0 4k")
        reader.wait_for("read")
        reader.end()
    gone = cairn("info", f"rbd:rbd/{image}", ok=False)
    assert gone.code == 1 and "No such file" in gone.err


def test_what_to_look_at(ceph, image, cairn, monkeypatch):
    missing = cairn("info", f"rbd:rbd/{image}@none", ok=False).err
    assert "There is no such image, or it has no snapshot 'none'." in missing
    monkeypatch.setenv("CEPH_CONF", "/dev/null")
    assert "No monitor is known" in cairn("info", f"rbd:rbd/{image}", ok=False).err


def test_header_missing(ceph, image, cairn):
    with ceph.pool() as pool:
        with rbd.Image(pool, image) as opened:
            header = f"rbd_header.{opened.id()}"
        pool.remove_object(header)
    opened = cairn("info", f"rbd:rbd/{image}", ok=False)
    assert opened.code == 1 and "error reading header" in opened.err


def test_header_of_something_else(ceph, image, cairn):
    with ceph.pool() as pool:
        pool.write_full(f"rbd_id.{image}", b"\xff\xff\xff\xff")
    opened = cairn("info", f"rbd:rbd/{image}", ok=False)
    assert opened.code == 1 and "error reading header" in opened.err


def test_read_only_user(ceph, image, cairn):
    key = ceph.user("reader", mon="profile rbd", osd="profile rbd-read-only")
    name = described(image, user="reader", timeout=10, **{"key-secret": "k"})
    cairn("info", *secret("k", key), name)
    cairn("io", *secret("k", key), "-r", "-c", "read 0 4k", name)
    refused = cairn("io", *secret("k", key), "-c", "write 0 4k", name, ok=False)
    assert refused.code == 1 and "not permitted" in refused.err + refused.out


def test_made_by_the_daemon(ceph):
    for program in (CAIRN.parent / "compat/qemu-storage-daemon", "qemu-storage-daemon"):
        location = {"pool": "rbd", "image": "job", "conf": str(ceph.conf)}
        what = {"driver": "rbd", "location": location, "size": 5 << 20, "cluster-size": 65536}
        assert create_over_stdio([program], **what) is None
        with ceph.pool() as pool:
            with rbd.Image(pool, "job", read_only=True) as made:
                assert made.size() == 5 << 20 and made.stat()["obj_size"] == 65536
            rbd.RBD().remove(pool, "job")
        secret_words = ["--object", "secret,id=s,data=pass"]
        encrypted = {**what, "size": SIZE, "encrypt": {"format": "luks2", "key-secret": "s"}}
        assert create_over_stdio([program], *secret_words, **encrypted) is None
        assert content(ceph, "job").startswith(b"LUKS\xba\xbe\0\2")
        with ceph.pool() as pool:
            rbd.RBD().remove(pool, "job")
