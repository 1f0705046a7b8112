"""VDIs of a Sheepdog cluster: names, data, snapshots, clones, sizes, locks; and nodes that die."""
import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import CAIRN, TOP, sparse_disk
from support import sheep
from support.sheep import CREATE, FLUSH, INODE, READ, WRITE, Cluster, Request

pytestmark = pytest.mark.any_engine
MIB = 1 << 20
SIZE = 30 * MIB


@pytest.fixture
def cluster(folder):
    with Cluster(folder, nodes=2) as running:
        yield running
    assert running.store.complaints == []


@pytest.fixture
def image(folder):
    return sparse_disk(folder / "disk.raw", SIZE, seed=5, pieces=60)


def described(cluster, vdi, nodes=1, **options):
    servers = [{"type": "inet", "host": "127.0.0.1", "port": str(n.port)} for n in cluster.nodes]
    server = servers[0] if nodes == 1 else servers[:nodes]
    return "json:" + json.dumps(
        {
            "driver": "raw",
            "file": {"driver": "sheepdog", "vdi": vdi, "server": server, **options},
        }
    )


def written(*commands):
    return [word for command in commands for word in ("-c", command)]


def objects_of(cluster, vdi):
    return [number for number, has in enumerate(cluster.store.index(vdi)) if has]


MANUAL = """
qemu-img create sheepdog:///image 4G
qemu-img create sheepdog:///base 64M
qemu-img convert filename sheepdog:///imported
qemu-img snapshot -c tag sheepdog:///base
qemu-img info sheepdog:///base#tag
qemu-img create -b sheepdog:///base#tag sheepdog:///clone
qemu-img create -b sheepdog:///base#1 sheepdog:///other
qemu-img info sheepdog+unix:///image?socket=SOCKET
qemu-img create sheepdog://127.0.0.1:7000/remote 4G
qemu-img snapshot -l sheepdog:///base
qemu-img convert -O qcow2 sheepdog:///imported exported.qcow2
qemu-img compare filename exported.qcow2
"""


def test_lines_of_the_manual(folder):
    """The user manual's examples as they are, with a daemon where it is expected: in a network of its own."""
    sparse_disk("filename", 5 * MIB)
    script = f"""
import fcntl, socket, struct, subprocess, sys
from pathlib import Path
sys.path.insert(0, {str(TOP / "tests")!r})
from support.sheep import Cluster
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
with Cluster(Path("."), ports=[7000]) as cluster:
    for line in {MANUAL.strip().split(chr(10))!r}:
        subprocess.run(line.replace("SOCKET", "sock0").split(), check=True)
    sys.exit(str(cluster.store.complaints) if cluster.store.complaints else 0)
"""
    env = {**os.environ, "PATH": f"{CAIRN.parent / 'compat'}:{os.environ['PATH']}"}
    root = [] if os.geteuid() == 0 else ["--map-root-user"]
    done = subprocess.run(
        ["unshare", "--net", *root, sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=env,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for said in (
        "Formatting 'sheepdog:///image', fmt=raw size=4294967296\n",
        "Formatting 'sheepdog:///clone', fmt=raw size=67108864 backing_file=sheepdog:///base#tag\n",
        "image: sheepdog:///base#tag\nfile format: raw\nvirtual size: 64 MiB (67108864 bytes)\n",
        "image: sheepdog+unix:///image?socket=sock0\n",
        "Images are identical.\n",
    ):
        assert said in done.stdout, done.stdout


def test_names(cluster, folder, cairn):
    """Every spelling leads to the same disk, also those with options."""
    port = cluster.nodes[0].port
    cairn("create", "-f", "raw", cluster.url("disk"), "3M")
    cairn("io", "-f", "raw", *written("write -P 1 0 3M"), cluster.url("disk"))
    cairn("snapshot", "-f", "raw", "-c", "now", cluster.url("disk"))
    inet = f"file.driver=sheepdog,file.server.host=127.0.0.1,file.server.port={port},file.vdi=disk"
    for words in (
        [f"sheepdog://127.0.0.1:{port}/disk"],
        [f"sheepdog+tcp://localhost:{port}/disk"],
        [f"sheepdog://:{port}/%64isk#now"],
        [f"sheepdog://127.0.0.1:{port}/disk#1"],
        [f"sheepdog+unix:///disk?socket={folder}/sock0"],
        [f"sheepdog+unix:///disk?socket={folder}/sock1#now"],
        [f"sheepdog:127.0.0.1:{port}:disk"],
        [f"sheepdog:127.0.0.1:{port}:disk:now"],
        [f"sheepdog:127.0.0.1:{port}:disk:1"],
        [described(cluster, "disk", tag="now")],
        [described(cluster, "disk", nodes=2, **{"snap-id": 1})],
        ["--image-opts", f"driver=raw,{inet},file.server.type=inet,file.tag=now"],
        ["--image-opts", f"driver=raw,{inet},file.snap-id=1,file.timeout=9"],
        [
            "--image-opts",
            f"driver=raw,file.driver=sheepdog,file.server.path={folder}/sock0,file.vdi=disk",
        ],
    ):
        shown = cairn("info", "--output", "json", *words).json()
        assert (shown["virtual-size"], shown["actual-size"]) in ((3 * MIB, 0), (3 * MIB, 4 * MIB))
        raw = [] if words[0] == "--image-opts" else ["-f", "raw"]
        assert (
            "verification failed"
            not in cairn("io", "-r", *raw, *words[:-1], *written("read -P 1 0 3M"), words[-1]).out
        )


@pytest.mark.parametrize(
    "name, says",
    [
        ("sheepdog://h/", "the name of the VDI is missing"),
        ("sheepdog:///d#", "the snapshot after '#' is missing"),
        ("sheepdog:///d?socket=x", "a Sheepdog URI has no parameters"),
        ("sheepdog+unix:///d", "needs the parameter socket"),
        ("sheepdog+unix://h/d?socket=x", "has a socket, and no host"),
        ("sheepdog:///" + "a" * 256, "1 to 255 bytes"),
        ("sheepdog://h:70000/d", "is no number up to 65535"),
        ('json:{"driver":"sheepdog"}', "Parameter 'vdi' is missing"),
        ('json:{"driver":"sheepdog","vdi":"d","tag":"a","snap-id":1}', "mutually exclusive"),
        ('json:{"driver":"sheepdog","vdi":"d","server":{"type":"vsock"}}', "inet and unix"),
        ('json:{"driver":"sheepdog","vdi":"d","timeout":0}', "between 1 and"),
    ],
)
def test_wrong_names(cairn, name, says):
    refused = cairn("info", name, ok=False)
    assert refused.code == 1 and says in refused.err


def test_nobody_listens(cairn):
    refused = cairn("info", "sheepdog://127.0.0.1:1/disk", ok=False)
    assert refused.code == 1 and "Failed to connect to '127.0.0.1:1'" in refused.err


def test_missing_vdis(cluster, cairn):
    cairn("create", "-f", "raw", cluster.url("disk"), "1M")
    for name, says in (
        ("none", "VDI 'none': there is no such VDI"),
        ("disk#t", "Snapshot 't' of VDI 'disk': the VDI has no such snapshot"),
        ("disk#9", "Snapshot 9 of VDI 'disk': the VDI has no such snapshot"),
    ):
        refused = cairn("info", cluster.url(name), ok=False)
        assert refused.code == 1 and says in refused.err
    refused = cairn("create", "-f", "raw", cluster.url("disk"), "1M", ok=False)
    assert refused.code == 1 and "the VDI exists already" in refused.err
    assert "dog vdi delete disk" in refused.err


def test_data(cluster, image, folder, cairn):
    """Every byte, in aligned and other pieces, over and inside of objects, and of a qcow2 image."""
    url = cluster.url("disk")
    cairn("convert", "-f", "raw", "-O", "raw", image, url)
    cairn("compare", "-f", "raw", "-F", "raw", image, url)
    cairn(
        "io",
        "-f",
        "raw",
        *written(
            "write -P 7 10 1000",
            "write -P 8 4194300 70001",
            "write -P 9 7M 9M",
            "write -z 17M 2M",
            "write -f -P 3 21M 64k",
            "flush",
            "read -P 8 4194300 70001",
        ),
        url,
    )
    expected = bytearray(image.read_bytes())
    for byte, at, length in (
        (7, 10, 1000),
        (8, 4194300, 70001),
        (9, 7 * MIB, 9 * MIB),
        (0, 17 * MIB, 2 * MIB),
        (3, 21 * MIB, 65536),
    ):
        expected[at : at + length] = bytes([byte]) * length
    cairn("convert", "-f", "raw", "-O", "raw", url, "out.raw")
    assert (folder / "out.raw").read_bytes() == expected
    cairn("convert", "-f", "raw", "-O", "qcow2", url, "out.qcow2")
    cairn("convert", "-O", "raw", "out.qcow2", cluster.url("again"))
    cairn("compare", "-f", "raw", "-F", "raw", "out.raw", cluster.url("again"))
    cairn("convert", "-n", "-f", "raw", "-O", "raw", image, cluster.url("again"))
    cairn("compare", "-f", "raw", "-F", "raw", image, cluster.url("again"))
    # One question, after which nobody asks again.
    assert len([one for one in cluster.store.log if one.op == FLUSH]) <= 5


def test_holes(cluster, folder, cairn):
    """Only what was written has objects; zeroes and discards of whole objects give them back."""
    url = cluster.url("disk")
    cairn("create", "-f", "raw", url, "40M")
    cairn("io", "-f", "raw", *written("write -P 1 8M 8M", "write -P 2 33M 1M"), url)
    vdi = cluster.store.find("disk")
    assert objects_of(cluster, vdi) == [2, 3, 8]
    shown = cairn("map", "-f", "raw", "--output", "json", url).json()
    shown = shown if isinstance(shown, list) else shown["extents"]
    assert [(one["start"], one["length"], one["data"]) for one in shown] == [
        (0, 8 * MIB, False),
        (8 * MIB, 8 * MIB, True),
        (16 * MIB, 16 * MIB, False),
        (32 * MIB, 4 * MIB, True),
        (36 * MIB, 4 * MIB, False),
    ]
    assert cairn("info", "--output", "json", url).json()["actual-size"] == 12 * MIB
    cairn(
        "io",
        "-f",
        "raw",
        "-d",
        "unmap",
        *written("discard 7M 6M", "write -z 34M 1M", "read -P 1 12M 4M", "read -P 0 8M 4M"),
        url,
    )
    assert objects_of(cluster, vdi) == [3, 8] and (vdi << 32 | 2) not in cluster.store.objects
    cairn("io", "-f", "raw", *written("write -z 12M 28M", "read -P 0 0 40M"), url)
    assert objects_of(cluster, vdi) == []
    assert [oid for oid in cluster.store.objects if not oid & INODE] == []


def test_options_of_creation(cluster, folder, cairn, ours):
    def made(name, *words, size="10M"):
        done = ours("create", *words, cluster.url(name), size)
        vdi = cluster.store.find(name)
        return done.out, struct.unpack_from("<BBBB", cluster.store.inode(vdi), 552)

    assert made("plain")[1] == (0, 0, 3, 22)
    said, fields = made("copies", "-o", "redundancy=2,object_size=8M")
    assert fields == (0, 0, 2, 23) and said.endswith(
        "fmt=raw size=10485760 redundancy=2 object_size=8388608\n"
    )
    assert made("coded", "-o", "redundancy=4:2")[1] == (0x22, 0, 6, 22)
    made("full", "-o", "preallocation=full")
    full = cluster.store.find("full")
    assert objects_of(cluster, full) == [0, 1, 2]
    assert cairn("info", "--output", "json", cluster.url("full")).json()["actual-size"] == 12 * MIB
    made("huge", "-o", "object_size=64M", size="64T")
    for words, size, says in (
        ([], "5T", "has at most 4398046511104 bytes"),
        (["-o", "object_size=3M"], "1M", "Invalid object size"),
        (["-o", "object_size=4G"], "1M", "Invalid object size"),
        (["-o", "redundancy=3:1"], "1M", "Invalid redundancy '3:1'"),
        (["-o", "redundancy=40"], "1M", "1 to 31 copies"),
        (["-o", "preallocation=metadata"], "1M", "Invalid preallocation mode"),
    ):
        refused = cairn("create", "-f", "raw", *words, cluster.url("new"), size, ok=False)
        assert refused.code == 1 and says in refused.err
    refused = cairn("create", "-f", "raw", cluster.url("plain#tag"), "1M", ok=False)
    assert refused.code == 1 and "A snapshot cannot be created by its name" in refused.err
    listed = ours("create", "-o", "help", cluster.url("x")).out
    for option in ("backing_file", "preallocation", "redundancy", "object_size", "size"):
        assert f"  {option}=<" in listed


def test_snapshots(cluster, image, folder, cairn, ours):
    url = cluster.url("disk")
    cairn("convert", "-f", "raw", "-O", "raw", image, url)
    ours("snapshot", "-f", "raw", "-c", "first", url)
    cairn("io", "-f", "raw", *written("write -P 5 1M 6M"), url)
    ours("snapshot", "-f", "raw", "-c", "second", url)
    cairn("io", "-f", "raw", *written("write -P 6 0 30M"), url)
    lines = ours("snapshot", "-l", url).out.splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [["1", "first"], ["2", "second"]]
    shown = ours("info", "--output", "json", url).json()["snapshots"]
    assert [(one["id"], one["name"]) for one in shown] == [("1", "first"), ("2", "second")]
    assert abs(shown[0]["date-sec"] - time.time()) < 600
    cairn("compare", "-f", "raw", "-F", "raw", image, cluster.url("disk#first"))
    cairn("convert", "-f", "raw", "-O", "raw", "-l", "second", url, "second.raw")
    cairn("compare", "-f", "raw", "-F", "raw", "second.raw", cluster.url("disk#2"))
    cairn("convert", "-f", "raw", "-O", "raw", "-l", "snapshot.id=1", url, "first.raw")
    assert (folder / "first.raw").read_bytes() == image.read_bytes()

    cairn("convert", "--all-snapshots", "-f", "raw", "-O", "qcow2", url, "all.qcow2")
    for name in ("first", "second"):
        cairn("convert", "-O", "raw", "-l", name, "all.qcow2", f"{name}.qcow2.raw")
        assert (folder / f"{name}.qcow2.raw").read_bytes() == (folder / f"{name}.raw").read_bytes()
    cairn("compare", "-F", "raw", "all.qcow2", url)

    for words, says in (
        (["-c", "first"], "there is a snapshot of that name already"),
        (["-c", "x" * 256], "1 to 255 bytes"),
        (["-a", "third"], "snapshot not found"),
        (["-a", "3"], "snapshot not found"),
        (["-d", "third"], "snapshot not found"),
    ):
        refused = ours("snapshot", "-f", "raw", *words, url, ok=False)
        assert refused.code == 1 and says in refused.err
    refused = cairn("io", "-f", "raw", *written("write 0 1k"), cluster.url("disk#first"), ok=False)
    assert refused.code == 1 and "A snapshot of a VDI cannot be written" in refused.err

    ours("snapshot", "-f", "raw", "-a", "first", url)
    cairn("compare", "-f", "raw", "-F", "raw", image, url)
    cairn("io", "-f", "raw", *written("write -P 9 2M 1M"), url)
    # What was given up is no snapshot.
    assert len(ours("snapshot", "-l", url).out.splitlines()) == 4
    ours("snapshot", "-f", "raw", "-d", "first", url)
    cairn("compare", "-f", "raw", "-F", "raw", "second.raw", cluster.url("disk#second"))
    ours("snapshot", "-f", "raw", "-d", "2", url)
    assert ours("snapshot", "-l", url).out == ""
    expected = bytearray(image.read_bytes())
    expected[2 * MIB : 3 * MIB] = b"\11" * MIB
    cairn("convert", "-f", "raw", "-O", "raw", url, "out.raw")
    assert (folder / "out.raw").read_bytes() == expected
    # Only what the disk still needs is there.
    kept = [oid for oid in cluster.store.objects if not oid & INODE]
    assert len(kept) == len(objects_of(cluster, cluster.store.find("disk")))


def test_clones(cluster, image, folder, cairn, ours):
    base = cluster.url("base")
    cairn("convert", "-f", "raw", "-O", "raw", image, base)
    cairn("snapshot", "-f", "raw", "-c", "snap", base)
    done = ours("create", "-b", base + "#snap", cluster.url("clone"))
    assert done.out == (
        f"Formatting '{cluster.url('clone')}', fmt=raw size={SIZE} backing_file={base}#snap\n"
    )
    ours("create", "-F", "raw", "-b", base + "#1", "-o", "preallocation=full", cluster.url("full"))
    cairn("create", "-f", "raw", "-b", base + "#snap", cluster.url("third"), str(SIZE))
    assert cairn("info", "--output", "json", cluster.url("clone")).json()["actual-size"] == 0
    assert objects_of(cluster, cluster.store.find("full")) == list(range(8))
    before = len(cluster.store.log)
    cairn(
        "io", "-f", "raw", *written("write -P 7 1M 4M", "write -P 8 12M 4M"), cluster.url("clone")
    )
    copies = [one.flags & 2 for one in cluster.store.log[before:] if one.op == CREATE]
    # What is written whole is not copied first, and neither is a hole.
    base_index = cluster.store.index(cluster.store.find("base", "snap"))
    assert copies == [2 if base_index[0] else 0, 2 if base_index[1] else 0, 0]
    expected = bytearray(image.read_bytes())
    expected[MIB : 5 * MIB] = b"\7" * (4 * MIB)
    expected[12 * MIB : 16 * MIB] = b"\10" * (4 * MIB)
    cairn("convert", "-f", "raw", "-O", "raw", cluster.url("clone"), "out.raw")
    assert (folder / "out.raw").read_bytes() == expected
    for name in ("base", "base#snap", "full", "third"):
        cairn("compare", "-f", "raw", "-F", "raw", image, cluster.url(name))
    # An inherited object that is given up stays with the snapshot.
    cairn("io", "-f", "raw", "-d", "unmap", *written("discard 0 30M"), cluster.url("third"))
    cairn("snapshot", "-f", "raw", "-d", "snap", base)
    cairn("io", "-f", "raw", *written("write -P 1 0 30M"), base)
    cairn("compare", "-f", "raw", "-F", "raw", "out.raw", cluster.url("clone"))
    cairn("compare", "-f", "raw", "-F", "raw", image, cluster.url("full"))


def test_refused_clones(cluster, image, cairn, ours):
    cairn("create", "-f", "raw", cluster.url("base"), "8M")
    cairn("snapshot", "-f", "raw", "-c", "snap", cluster.url("base"))
    snap, new = cluster.url("base#snap"), cluster.url("new")
    for words, says in (
        (["-b", cluster.url("base"), new], "it must be a snapshot"),
        (["-b", snap, new, "16M"], "A clone has the size of its snapshot, 8388608 bytes"),
        (["-b", snap, "-o", "redundancy=2", new], "has the redundancy and the object size"),
        (["-b", image, new], "both must be of 'sheepdog'"),
        (["-b", cluster.url("base#none"), new], "the VDI has no such snapshot"),
        (["-b", snap, "-F", "qcow2", new], "has a raw backing file"),
    ):
        refused = ours("create", *words, ok=False)
        assert refused.code == 1 and says in refused.err, refused.err
    assert cairn("info", new, ok=False).code == 1


def test_resize(cluster, folder, cairn, ours):
    url = cluster.url("disk")
    cairn("create", "-f", "raw", url, "5M")
    cairn("io", "-f", "raw", *written("write -P 1 0 5M"), url)
    assert ours("resize", "-f", "raw", url, "+20M").out == "Image resized.\n"
    cairn("io", "-f", "raw", *written("read -P 0 5M 20M", "write -P 2 24M 1M"), url)
    assert cairn("info", "--output", "json", url).json()["virtual-size"] == 25 * MIB
    for size, says in (("5T", "has at most 4398046511104 bytes"), ("1M", "cannot shrink")):
        refused = ours("resize", "-f", "raw", "--shrink", url, size, ok=False)
        assert refused.code == 1 and says in refused.err
    ours("resize", "-f", "raw", "--preallocation=full", url, "30M")
    assert objects_of(cluster, cluster.store.find("disk")) == [0, 1, 6, 7]
    cairn(
        "io", "-f", "raw", *written("read -P 1 0 5M", "read -P 2 24M 1M", "read -P 0 25M 5M"), url
    )


def test_only_the_index_that_is_needed_is_read(cluster, folder, cairn):
    cairn("create", "-f", "raw", cluster.url("small"), "64M")
    cairn("create", "-f", "raw", cluster.url("large"), "4T")
    for name, entries in (("small", 16), ("large", 1 << 20)):
        before = len(cluster.store.log)
        cairn("map", "-f", "raw", cluster.url(name))
        sizes = [one.length for one in cluster.store.log[before:] if one.op == READ]
        assert sum(sizes) == sheep.INDEX + 4 * entries


def test_odd_sizes_of_others(cluster, folder, cairn):
    """A VDI that ends inside of a sector, one with a tag of digits, and one with an index of another kind."""
    request = Request(bytes(48), b"")
    request.name, request.op, request.size = "odd", sheep.NEW, 1_000_001
    vdi = cluster.store.new(request)
    url = cluster.url("odd")
    cairn("io", "-f", "raw", *written("write -P 4 999000 1001", "read -P 4 999000 1001"), url)
    cairn("convert", "-f", "raw", "-O", "raw", url, "out.raw")
    assert (folder / "out.raw").read_bytes() == bytes(999000) + b"\4" * 1001 + bytes(447)
    cairn("snapshot", "-f", "raw", "-c", "2024", url)
    shown = cairn("info", described(cluster, "odd", tag="2024")).out
    assert '"tag": "2024"' in shown
    cairn("create", "-f", "raw", "-b", cluster.url("odd#1"), cluster.url("clone"))
    assert cluster.store.number(cluster.store.find("clone"), sheep.AT_SIZE, "<Q") == 1_000_001
    cluster.store.inode(cluster.store.find("odd"))[sheep.AT_STORE] = 1
    refused = cairn("info", url, ok=False)
    assert refused.code == 1 and "is a hyper volume, whose index is not supported" in refused.err
    assert vdi == sheep.hashed("odd")


def test_formats_and_overlays(cluster, image, folder, cairn, ours):
    """An image format on a VDI, which grows as it needs, and one file over a snapshot."""
    url = cluster.url("disk")
    cairn("create", "-f", "qcow2", url, "1G")
    cairn("io", "-f", "qcow2", *written("write -P 3 100M 2M", "write -P 4 1023M 1M"), url)
    ours("check", "-f", "qcow2", url)
    cairn("io", "-r", "-f", "qcow2", *written("read -P 3 100M 2M", "read -P 4 1023M 1M"), url)
    cairn("convert", "-f", "raw", "-O", "raw", image, cluster.url("base"))
    cairn("snapshot", "-f", "raw", "-c", "snap", cluster.url("base"))
    name = cluster.url("base#snap")
    ours("create", "-q", "-f", "qcow2", "-F", "raw", "-b", name, "over.qcow2")
    shown = ours("info", "over.qcow2").out
    assert f"backing file: {name}\n" in shown and "virtual size: 30 MiB" in shown
    cairn("io", *written("write -P 1 0 64k"), "over.qcow2")
    cairn("convert", "-O", "raw", "over.qcow2", "out.raw")
    assert (folder / "out.raw").read_bytes()[65536:] == image.read_bytes()[65536:]
    # The working VDI takes what an overlay has.
    ours("rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", cluster.url("base"), "over.qcow2")
    ours("commit", "-f", "qcow2", "over.qcow2")
    cairn("compare", "-f", "raw", "-F", "raw", "out.raw", cluster.url("base"))
    cairn("compare", "-f", "raw", "-F", "raw", image, name)


def session(url, fmt=("-f", "raw")):
    """A program that holds the VDI open."""
    return subprocess.Popen(
        [CAIRN, "io", *fmt, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def say(job, line, until):
    job.stdin.write(line + "\n")
    job.stdin.flush()
    text = ""
    while until not in text:
        more = job.stdout.readline()
        assert more, text
        text += more


def snapshot_by_another(store, size):
    """The daemon's part of making a snapshot called "snap"."""
    with store.guard:
        old = store.find("disk")
        request = Request(bytes(48), b"")
        request.name, request.op, request.size, request.base, request.snap = (
            "disk",
            sheep.NEW,
            size,
            old,
            1,
        )
        store.inode(old)[256:260] = b"snap"
        return store.new(request)


@pytest.mark.parametrize("change", ["write -P 2 1M 2M", "write -z 0 4M"], ids=["write", "zero"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_snapshot_in_the_middle_of_a_change(folder, cairn, change, when):
    """Made when the object is there and the index does not name it yet, or just has: the disk has what was written."""
    with Cluster(folder) as cluster:
        cairn("create", "-f", "raw", cluster.url("disk"), "8M")
        if "-z" in change:
            cairn("io", "-f", "raw", *written("write -P 1 0 4M"), cluster.url("disk"))
        made = []

        def fault(request, normal):
            if not request.oid & INODE or request.op != WRITE or made:
                return normal()
            made.append(when)
            if when == "before":
                snapshot_by_another(cluster.store, 8 * MIB)
            sent = normal()
            if when == "after":
                snapshot_by_another(cluster.store, 8 * MIB)
            return sent

        cluster.nodes[0].fault = fault
        cairn("io", "-f", "raw", *written(change), cluster.url("disk"))
        assert made and cluster.store.complaints == []
        expected = ["read -P 0 0 8M"] if "-z" in change else ["read -P 0 0 1M", "read -P 2 1M 2M"]
        cairn("io", "-r", "-f", "raw", *written(*expected), cluster.url("disk"))


@pytest.mark.parametrize("locks", [False, True], ids=["free", "locks"])
def test_a_snapshot_while_it_is_written(folder, cairn, locks):
    """Somebody else makes one: what was written before is in it, and what comes after is not."""
    with Cluster(folder, locks=locks) as cluster:
        url = cluster.url("disk")
        cairn("create", "-f", "raw", url, "16M")
        job = session(url)
        say(job, "write -P 1 0 8M", "ops/sec")
        old = cluster.store.find("disk")
        new = snapshot_by_another(cluster.store, 16 * MIB)
        say(job, "write -P 2 1M 2M", "ops/sec")
        say(job, "write -z 4M 4M", "ops/sec")
        say(job, "write -P 3 12M 1M", "ops/sec")
        job.communicate("quit\n", timeout=30)
        assert job.returncode == 0 and cluster.store.locks == {} and new != old
        cairn(
            "io",
            "-r",
            "-f",
            "raw",
            *written("read -P 1 0 8M", "read -P 0 8M 8M"),
            cluster.url("disk#snap"),
        )
        cairn(
            "io",
            "-r",
            "-f",
            "raw",
            *written("read -P 1 0 1M", "read -P 2 1M 2M", "read -P 0 4M 4M", "read -P 3 12M 1M"),
            url,
        )
        assert cluster.store.complaints == []


def test_zeroes_after_a_snapshot(folder, cairn):
    """The first change after it is one of the index, which nothing but the client protects."""
    with Cluster(folder) as cluster:
        url = cluster.url("disk")
        cairn("create", "-f", "raw", url, "8M")
        job = session(url)
        say(job, "write -P 1 0 8M", "ops/sec")
        cairn("snapshot", "-f", "raw", "-c", "snap", url)
        say(job, "write -z 0 4M", "ops/sec")
        job.communicate("quit\n", timeout=30)
        cairn("io", "-r", "-f", "raw", *written("read -P 1 0 8M"), cluster.url("disk#snap"))
        cairn("io", "-r", "-f", "raw", *written("read -P 0 0 4M", "read -P 1 4M 4M"), url)
        assert cluster.store.complaints == []


def test_locks(folder, cairn):
    with Cluster(folder, locks=True) as cluster:
        url = cluster.url("disk")
        cairn("create", "-f", "raw", url, "8M")
        job = session(url)
        say(job, "write -P 1 0 1M", "ops/sec")
        assert len(cluster.store.locks) == 1
        refused = cairn("io", "-f", "raw", *written("write 0 1k"), url, ok=False)
        assert refused.code == 1 and "VDI 'disk' is in use by another client" in refused.err
        assert "dog vdi lock unlock disk" in refused.err
        cairn("io", "-r", "-f", "raw", *written("read -P 1 0 1M"), url)
        cairn("info", url)
        job.communicate("quit\n", timeout=30)
        assert cluster.store.locks == {}
        cairn("snapshot", "-f", "raw", "-c", "a", url)
        cairn("io", "-f", "raw", *written("write -P 2 0 1M"), url)
        cairn("snapshot", "-f", "raw", "-a", "a", url)
        cairn("io", "-r", "-f", "raw", *written("read -P 1 0 1M"), url)
        assert cluster.store.locks == {} and cluster.store.complaints == []


@pytest.mark.parametrize("nodes", [1, 2], ids=["back", "next"])
def test_a_lock_is_taken_again(folder, cairn, nodes):
    """Where the daemon that kept it died, by the one that is asked from then on."""
    with Cluster(folder, nodes=nodes, locks=True) as cluster:
        cairn("create", "-f", "raw", cluster.url("disk"), "8M")
        job = session(described(cluster, "disk", nodes=nodes), fmt=[])
        say(job, "write -P 1 0 1M", "ops/sec")
        first = cluster.nodes[0]
        first.stop()
        assert cluster.store.locks == {}
        if nodes == 1:
            first.start()
        say(job, "write -P 2 1M 1M", "ops/sec")
        assert list(cluster.store.locks.values()) == [cluster.nodes[-1]]
        say(job, "read -P 1 0 1M", "ops/sec")
        job.communicate("quit\n", timeout=30)
        assert job.returncode == 0 and cluster.store.locks == {}


def test_served(cluster, image, folder, cairn):
    """By our NBD server, which another client reads."""
    cairn("convert", "-f", "raw", "-O", "raw", image, cluster.url("disk"))
    path = folder / "nbd"
    job = subprocess.Popen(
        [CAIRN.parent / "compat/qemu-nbd", "-f", "raw", "-k", path, cluster.url("disk")]
    )
    try:
        until = time.monotonic() + 20
        while not path.exists():
            assert job.poll() is None and time.monotonic() < until
            time.sleep(0.02)
        subprocess.run(
            ["qemu-img", "compare", "-f", "raw", "-F", "raw", image, f"nbd+unix:///?socket={path}"],
            check=True,
            timeout=60,
        )
        job.wait(timeout=20)
    finally:
        job.kill()
        job.wait()


BROKEN = [
    *("convert", "--image-opts", "-O", "raw"),
    "driver=blkdebug,config=faults,image.driver=file,image.filename=disk.raw",
]


@pytest.fixture
def faults(folder, image):
    """A sector near the end of the image cannot be read."""
    sector = SIZE // 512 - 8
    with open(image, "r+b") as file:
        file.seek(sector * 512)
        file.write(b"x" * 512)
    (folder / "faults").write_text(
        f'[inject-error]\nevent = "none"\nonce = "off"\nerrno = "5"\nsector = "{sector}"\n'
    )


def test_a_copy_that_fails_leaves_nothing(cluster, faults, cairn):
    failed = cairn(*BROKEN, cluster.url("disk"), ok=False)
    assert failed.code == 1 and "Input/output error" in failed.err
    assert f"The incomplete target '{cluster.url('disk')}' was removed." in failed.err
    assert all(cluster.store.name(vdi) != "disk" for vdi in cluster.store.vdis)
    cairn("create", "-f", "raw", cluster.url("disk"), "1M")


def test_a_copy_that_fails_leaves_what_was_there(cluster, faults, cairn):
    cairn("create", "-f", "raw", cluster.url("disk"), SIZE)
    assert "removed" not in cairn(*BROKEN, cluster.url("disk"), ok=False).err
    assert "removed" not in cairn(*BROKEN[:1], "-n", *BROKEN[1:], cluster.url("disk"), ok=False).err
    cairn("info", cluster.url("disk"))
