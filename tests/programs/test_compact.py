"""cairn compact: a qcow2 written anew, in place or to a new file."""
import json
import os
import signal
import stat
import subprocess
import time

import pytest

from conftest import CAIRN, sparse_disk


@pytest.fixture
def disk(folder, qemu, qemu_io):
    """An image with clusters that were given up, out of order, and a copy of what the guest sees."""
    qemu("create", "-q", "-f", "qcow2", "a.qcow2", "16M")
    qemu_io("a.qcow2", *(f"write -P {i + 1} {(37 * i) % 256 * 65536} 64k" for i in range(150)))
    qemu_io("a.qcow2", "write -z -u 0 4M")
    subprocess.run(["qemu-img", "convert", "-O", "raw", "a.qcow2", "a.raw"], check=True)
    return folder


def data_offsets(qemu, name):
    return [one["offset"] for one in qemu("map", "--output=json", name).json() if "offset" in one and one["data"]]


def left_over(folder):
    return [path.name for path in folder.iterdir() if "cairn-" in path.name]


def test_in_place_is_smaller_in_order_and_the_same(disk, cairn, qemu):
    before = os.stat("a.qcow2")
    os.chmod("a.qcow2", 0o640)
    os.setxattr("a.qcow2", "user.note", b"kept")
    offsets = data_offsets(qemu, "a.qcow2")
    assert offsets != sorted(offsets)
    told = cairn("compact", "a.qcow2")
    assert " before, " in told.out
    qemu("compare", "a.raw", "a.qcow2")
    qemu("check", "a.qcow2")
    offsets = data_offsets(qemu, "a.qcow2")
    after = os.stat("a.qcow2")
    assert offsets == sorted(offsets) and after.st_blocks < before.st_blocks
    assert stat.S_IMODE(after.st_mode) == 0o640 and os.getxattr("a.qcow2", "user.note") == b"kept"
    assert left_over(disk) == []


@pytest.mark.parametrize("options", ["compat=0.10", "compression_type=zstd", "refcount_bits=1,cluster_size=4k",
                                     "extended_l2=on", "lazy_refcounts=on,cluster_size=2M"])
def test_options_stay(disk, cairn, qemu, options):
    qemu("convert", "-O", "qcow2", "-o", options, "a.raw", "b.qcow2")

    def shape():
        info = qemu("info", "--output=json", "b.qcow2").json()
        return info["cluster-size"], info["format-specific"], info["virtual-size"]
    before = shape()
    cairn("compact", "-q", "b.qcow2")
    assert shape() == before
    qemu("compare", "a.raw", "b.qcow2")


def test_options_change(disk, cairn, qemu):
    cairn("compact", "-q", "-c", "-o", "cluster_size=128k,compression_type=zstd,compression_level=9", "a.qcow2", "new.qcow2")
    info = qemu("info", "--output=json", "new.qcow2").json()
    assert info["cluster-size"] == 131072 and info["format-specific"]["data"]["compression-type"] == "zstd"
    assert os.path.getsize("new.qcow2") < os.path.getsize("a.qcow2") / 4
    qemu("compare", "a.raw", "new.qcow2")
    done = cairn("compact", "-o", "backing_file=x", "a.qcow2", ok=False)
    assert done.code == 1 and "cannot be changed" in done.err
    assert "Invalid parameter" in cairn("compact", "-o", "nope=1", "a.qcow2", ok=False).err
    assert left_over(disk) == []


@pytest.mark.parametrize("cluster", ["", "cluster_size=128k", "cluster_size=16k"])
def test_compressed_clusters_stay_compressed(folder, cairn, qemu, qemu_io, cluster):
    sparse_disk("a.raw", 6 << 20, pieces=60)
    qemu("convert", "-c", "-O", "qcow2", "a.raw", "c.qcow2")
    qemu_io("c.qcow2", "write -P 5 1M 64k", "write -P 6 3M 4k")
    qemu("convert", "-O", "raw", "c.qcow2", "c.raw")

    def compressed():
        return qemu("check", "--output=json", "c.qcow2").json().get("compressed-clusters", 0)
    before = compressed()
    words = ["-o", cluster] if cluster else []
    cairn("compact", "-q", *words, "c.qcow2")
    qemu("compare", "c.raw", "c.qcow2")
    qemu("check", "c.qcow2")
    assert compressed() > 0 and (cluster or compressed() >= before - 1)


@pytest.mark.parametrize("words", [[], ["-c"], ["-o", "cluster_size=128k"]], ids=str)
def test_overlays_keep_what_lies_below(folder, cairn, qemu, qemu_io, words):
    sparse_disk("base.raw", 4 << 20, pieces=30)
    os.mkdir("other")
    qemu("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "over.qcow2", "6M")
    qemu_io("over.qcow2", "write -P 1 2M 10k", "write -z 1M 128k", "write -P 4 5M 1k", "write -z 100k 64k")
    qemu("convert", "-O", "raw", "over.qcow2", "over.raw")
    cairn("compact", "-q", *words, "over.qcow2", "other/new.qcow2")
    cairn("compact", "-q", *words, "over.qcow2")
    for name in ("over.qcow2", "other/new.qcow2"):
        qemu("compare", "over.raw", name)
        qemu("check", name)
        info = qemu("info", "--output=json", name).json()
        assert os.path.samefile(os.path.join(os.path.dirname(name), info["backing-filename"]), "base.raw")
        assert info["backing-filename-format"] == "raw" and info["actual-size"] < 1 << 20
    assert qemu("info", "--output=json", "over.qcow2").json()["backing-filename"] == "base.raw"


def test_what_would_be_lost_is_refused(disk, cairn, qemu):
    def refused(name, *words):
        before = (disk / name).read_bytes()
        done = cairn("compact", name, ok=False)
        assert done.code == 1 and (disk / name).read_bytes() == before and left_over(disk) == []
        for word in words:
            assert word in done.err
    refused("a.raw", "only qcow2", "cairn convert")
    qemu("create", "-q", "-f", "qcow2", "-o", "data_file=d.raw", "d.qcow2", "1M")
    refused("d.qcow2", "'d.qcow2'")
    os.link("a.qcow2", "second.qcow2")
    refused("a.qcow2", "hard links")
    os.unlink("second.qcow2")
    qemu("snapshot", "-c", "one", "a.qcow2")
    refused("a.qcow2", "internal snapshots", "snapshot -d")
    qemu("snapshot", "-d", "one", "a.qcow2")
    qemu("bitmap", "--add", "a.qcow2", "b0")
    refused("a.qcow2", "bitmaps")


def test_wrong_words(disk, cairn):
    os.symlink("a.qcow2", "link.qcow2")
    assert "in place" in cairn("compact", "a.qcow2", "link.qcow2", ok=False).err
    (disk / "there").write_bytes(b"mine")
    assert "must not exist" in cairn("compact", "a.qcow2", "there", ok=False).err
    assert (disk / "there").read_bytes() == b"mine"
    assert cairn("compact", "missing.qcow2", ok=False).code == 1
    assert cairn("compact", "a.qcow2", "no/such/folder", ok=False).code == 1
    # A link stays a link; what it names is compacted.
    cairn("compact", "-q", "link.qcow2")
    assert os.path.islink("link.qcow2") and left_over(disk) == []


def test_an_image_in_use_is_left_alone(disk, cairn, qemu):
    writer = subprocess.Popen(["qemu-io", "a.qcow2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        writer.stdout.read(8)
        done = cairn("compact", "a.qcow2", ok=False)
        assert done.code == 1 and 'Failed to get "write" lock' in done.err or "lock" in done.err
    finally:
        writer.communicate(b"quit\n", timeout=10)
    assert left_over(disk) == []
    qemu("compare", "a.raw", "a.qcow2")


def test_no_room(disk, cairn, qemu, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", small], check=True)
    try:
        subprocess.run(["cp", "--sparse=always", "a.qcow2", small / "a.qcow2"], check=True)
        before = (small / "a.qcow2").read_bytes()
        (small / "filler").write_bytes(bytes((20 << 20) - (small / "a.qcow2").stat().st_blocks * 512 - (2 << 20)))
        done = cairn("compact", small / "a.qcow2", ok=False)
        assert done.code == 1 and "are needed" in done.err
        assert (small / "a.qcow2").read_bytes() == before and left_over(small) == []
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_changes_nothing(folder, qemu, which):
    with open("big.raw", "wb") as out:
        for i in range(120):
            out.write(bytes([i % 255 + 1]) * (1 << 20))
    qemu("convert", "-O", "qcow2", "big.raw", "big.qcow2")
    inode = os.stat("big.qcow2").st_ino
    process = subprocess.Popen([CAIRN, "compact", "-c", "-o", "compression_level=12", "big.qcow2"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for _ in range(200):
        if left_over(folder):
            break
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(which)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + which and b"cancelled" in err
    assert left_over(folder) == [] and os.stat("big.qcow2").st_ino == inode
    qemu("compare", "big.raw", "big.qcow2")
