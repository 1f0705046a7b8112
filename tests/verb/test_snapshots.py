"""Internal snapshots: ours and QEMU's in one image, in turns."""
import re

import pytest


@pytest.fixture(
    params=[
        "cluster_size=64k",
        "cluster_size=512",
        "cluster_size=16k,extended_l2=on",
        "compat=0.10",
        "cluster_size=4k,refcount_bits=8",
    ]
)
def image(request, folder, qemu, qemu_io):
    qemu("create", "-q", "-f", "qcow2", "-o", request.param, "a.qcow2", "3M")
    qemu_io("a.qcow2", "write -P 1 0 1M", "write -c -P 2 1M 128k", "write -z 2M 64k")
    return "a.qcow2"


def listing(tool, image):
    """The table without its dates."""
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DATE", tool("snapshot", "-l", image).out)


def test_made_by_us_read_by_qemu(ours, qemu, qemu_io, image):
    ours("snapshot", "-c", "one", image)
    qemu("check", "-q", image)
    ours("check", "-q", image)
    qemu_io(image, "write -P 9 100k 700k", "write -P 8 1M 10k")
    qemu("check", "-q", image)
    ours("snapshot", "-c", "two", image)
    assert listing(ours, image) == listing(qemu, image)
    assert (
        ours("info", "--output=json", image).json() == qemu("info", "--output=json", image).json()
    )
    for name in ("one", "two"):
        ours("convert", "-O", "raw", "-l", name, image, "ours.raw")
        qemu("convert", "-O", "raw", "-l", name, image, "theirs.raw")
        assert open("ours.raw", "rb").read() == open("theirs.raw", "rb").read()
    ours("snapshot", "-a", "one", image)
    qemu("check", "-q", image)
    qemu_io(image, "read -P 1 0 1M", "read -P 2 1M 128k", "read -P 0 2M 1M")
    ours("snapshot", "-a", "2", image)
    qemu_io(image, "read -P 1 0 100k", "read -P 9 100k 700k", "read -P 8 1M 10k")
    qemu("check", "-q", image)
    ours("snapshot", "-d", "one", image)
    qemu("check", "-q", image)
    ours("snapshot", "-d", "two", image)
    qemu("check", "-q", image)
    ours("check", "-q", image)
    assert ours("snapshot", "-l", image).out == ""
    qemu_io(image, "read -P 9 100k 700k", "write -P 7 0 3M", "read -P 7 0 3M")
    qemu("check", "-q", image)


def test_made_by_qemu_changed_by_us(ours, cairn, qemu, qemu_io, image):
    qemu("snapshot", "-c", "one", image)
    cairn("bench", "-q", "-w", "-c", "40", "-s", "5k", "-S", "40k", "--pattern", "77", image)
    qemu("check", "-q", image)
    ours("check", "-q", image)
    qemu("snapshot", "-c", "two", image)
    ours("snapshot", "-d", "one", image)
    qemu("check", "-q", image)
    ours("snapshot", "-a", "two", image)
    qemu("check", "-q", image)
    qemu_io(image, "read -P 77 0 5k", "read -P 1 5k 30k")
    qemu("snapshot", "-d", "two", image)
    ours("check", "-q", image)


def test_sizes_come_back(ours, qemu, folder):
    ours("create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "a.qcow2", "2M")
    ours("snapshot", "-c", "small", "a.qcow2")
    ours("resize", "-q", "a.qcow2", "100M")
    ours("snapshot", "-c", "large", "a.qcow2")
    for name, size in (("small", 2 << 20), ("large", 100 << 20), ("small", 2 << 20)):
        ours("snapshot", "-a", name, "a.qcow2")
        qemu("check", "-q", "a.qcow2")
        assert qemu("info", "--output=json", "a.qcow2").json()["virtual-size"] == size


@pytest.mark.parametrize(
    "words", [["-a", "gone"], ["-d", "gone"], ["-d", "1"], ["-c", "x", "-d", "y"], []], ids=str
)
def test_refusals_agree(ours, qemu, folder, words):
    qemu("create", "-q", "-f", "qcow2", "a.qcow2", "1M")
    qemu("snapshot", "-c", "one", "a.qcow2")
    mine = ours("snapshot", *words, "a.qcow2", ok=False)
    theirs = qemu("snapshot", *words, "a.qcow2", ok=False)
    assert mine.code == theirs.code
    if theirs.code and len(words) == 2:
        assert mine.err == theirs.err


def test_formats_without_snapshots(ours, qemu, folder):
    ours("create", "-q", "-f", "raw", "a.raw", "1M")
    for words in (["-l"], ["-c", "x"], ["-a", "x"], ["-d", "x"]):
        mine, theirs = (
            tool("snapshot", *words, "-f", "raw", "a.raw", ok=False) for tool in (ours, qemu)
        )
        assert (mine.code, mine.out) == (theirs.code, theirs.out)
        assert mine.err.startswith(theirs.err[:40])


def test_counters_that_cannot_rise(ours, qemu, qemu_io, folder):
    qemu("create", "-q", "-f", "qcow2", "-o", "refcount_bits=1", "a.qcow2", "1M")
    qemu_io("a.qcow2", "write -P 5 0 300k")
    failed = ours("snapshot", "-c", "x", "a.qcow2", ok=False)
    assert failed.code == 1 and "Invalid argument" in failed.err
    qemu("check", "-q", "a.qcow2")
    qemu_io("a.qcow2", "read -P 5 0 300k")


def test_extra_data_is_kept(ours, qemu, folder):
    """Bytes of a table entry that nobody knows survive a rewrite of the table."""
    import struct

    qemu("create", "-q", "-f", "qcow2", "a.qcow2", "1M")
    ours("snapshot", "-c", "one", "a.qcow2")
    image = bytearray(open("a.qcow2", "rb").read())
    at = struct.unpack_from(">Q", image, 64)[0]
    extra = struct.unpack_from(">I", image, at + 36)[0]
    tail = bytes(image[at + 40 + extra : at + 40 + extra + 4])
    image[at + 36 : at + 40] = struct.pack(">I", extra + 8)
    del image[at + 40 + extra :]
    image += b"mysterio" + tail + bytes(4)
    open("a.qcow2", "wb").write(image)
    ours("snapshot", "-c", "two", "a.qcow2")
    image = open("a.qcow2", "rb").read()
    at = struct.unpack_from(">Q", image, 64)[0]
    assert image[at + 64 : at + 72] == b"mysterio"
    assert "one" in qemu("snapshot", "-l", "a.qcow2").out
