"""What we write QEMU reads and the other way round, over every legal combination of layouts."""
import itertools
import os

import pytest

from conftest import sparse_disk

pytestmark = [pytest.mark.any_engine, pytest.mark.words]

CLUSTERS = [512 << i for i in range(13)]
PLAIN, ZLIB, ZSTD = "plain", "zlib", "zstd"


def settle(path):
    """What a file takes on its disk is only known once it is there; `map` depends on it."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def layouts():
    for cluster, bits, kind in itertools.product(
        CLUSTERS, (1, 2, 4, 8, 16, 32, 64), (PLAIN, ZLIB, ZSTD)
    ):
        yield "v3", cluster, bits, kind, False
        if cluster >= 16384:
            yield "v3", cluster, bits, kind, True
    for cluster, kind in itertools.product(CLUSTERS, (PLAIN, ZLIB)):
        yield "v2", cluster, 16, kind, False


def label(layout):
    version, cluster, bits, kind, extended = layout
    return f"{version}-{cluster}-{bits}-{kind}{'-ext' if extended else ''}"


def everyday(layout):
    return layout[1] in (512, 65536, 1 << 21) and layout[2] in (1, 16)


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(layout, id=label(layout), marks=() if everyday(layout) else pytest.mark.slow)
        for layout in layouts()
    ],
)
def test_layout(ours, qemu, folder, layout):
    version, cluster, bits, kind, extended = layout
    options = f"cluster_size={cluster},compat={version}"
    if version == "v3":
        options += f",refcount_bits={bits},extended_l2={'on' if extended else 'off'}"
    if kind == ZSTD:
        options += ",compression_type=zstd"
    compress = [] if kind == PLAIN else ["-c"]
    sparse_disk("disk.raw", 700 * 1024 + 512, seed=cluster + bits)
    ours("convert", "-O", "qcow2", "-o", options, *compress, "disk.raw", "ours.qcow2")
    qemu("check", "-q", "ours.qcow2")
    assert "identical" in qemu("compare", "-f", "raw", "disk.raw", "ours.qcow2").out
    qemu("convert", "-O", "qcow2", "-o", options, *compress, "disk.raw", "theirs.qcow2")
    ours("check", "-q", "theirs.qcow2")
    ours("compare", "-f", "raw", "disk.raw", "theirs.qcow2")
    settle("theirs.qcow2")
    theirs = qemu("info", "--output=json", "theirs.qcow2").json()
    mine = ours("info", "--output=json", "theirs.qcow2").json()
    assert mine == theirs
    assert ours("info", "theirs.qcow2").out == qemu("info", "theirs.qcow2").out
    for image in ("ours.qcow2", "theirs.qcow2"):
        settle(image)
        assert ours("map", "--output=json", image).out == qemu("map", "--output=json", image).out
    # Its creation options are announced as QEMU would.
    assert ours("create", "-f", "qcow2", "-o", options, "new", "1M").out == qemu(
        "create", "-f", "qcow2", "-o", options, "new2", "1M"
    ).out.replace("new2", "new")


@pytest.mark.parametrize("mode", ["off", "metadata", "falloc", "full"])
@pytest.mark.parametrize("extended", ["on", "off"])
def test_preallocation(ours, qemu, folder, mode, extended):
    options = f"preallocation={mode},extended_l2={extended}"
    ours("create", "-q", "-f", "qcow2", "-o", options, "a.qcow2", "4M")
    qemu("create", "-q", "-f", "qcow2", "-o", options, "b.qcow2", "4M")
    qemu("check", "-q", "a.qcow2")
    ours("check", "-q", "b.qcow2")
    a, b = (qemu("check", "--output=json", name).json() for name in ("a.qcow2", "b.qcow2"))
    assert a.get("allocated-clusters") == b.get("allocated-clusters")
    assert ours("compare", "a.qcow2", "b.qcow2").code == 0


def test_both_write_into_one_image(ours, cairn, qemu, qemu_io, folder):
    """Each program changes what the other one made, in turns."""
    ours("create", "-q", "-f", "qcow2", "disk.qcow2", "8M")
    for i in range(6):
        qemu_io(
            "disk.qcow2",
            f"write -P {i + 1} {i}M 300k",
            f"write -z {i}M 20k",
            f"write -c -P 9 {i + 1}M 64k",
        )
        qemu("check", "-q", "disk.qcow2")
        ours("check", "-q", "disk.qcow2")
        ours("resize", "-q", "disk.qcow2", "+1M")
        cairn(
            "bench",
            "-w",
            "-c",
            "10",
            "-d",
            "2",
            "-o",
            f"{i}M",
            "-s",
            "10k",
            "--pattern",
            "7",
            "disk.qcow2",
        )
        qemu("check", "-q", "disk.qcow2")
        qemu_io("disk.qcow2", f"read -P 7 {i}M 100k")
    ours("convert", "-O", "raw", "disk.qcow2", "disk.raw")
    qemu("compare", "-F", "raw", "disk.qcow2", "disk.raw")


def test_backing_chain(ours, qemu, qemu_io, folder):
    sparse_disk("base.raw", 2 << 20)
    ours("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "mid.qcow2")
    qemu_io("mid.qcow2", "write -P 3 64k 100k", "write -z 300k 64k")
    qemu(
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "extended_l2=on",
        "-b",
        "mid.qcow2",
        "-F",
        "qcow2",
        "top.qcow2",
        "3M",
    )
    qemu_io("top.qcow2", "write -P 4 100k 5k", "write -P 5 2500k 3k", "discard 1M 128k")
    for image in ("base.raw", "mid.qcow2", "top.qcow2"):
        settle(image)
    for image in ("mid.qcow2", "top.qcow2"):
        assert ours("map", "--output=json", image).out == qemu("map", "--output=json", image).out
        assert ours("map", image, ok=False).out == qemu("map", image, ok=False).out
        assert (
            ours("info", "--backing-chain", image).out == qemu("info", "--backing-chain", image).out
        )
        ours("convert", "-O", "raw", image, "flat.raw")
        qemu("compare", "-F", "raw", image, "flat.raw")
    ours("convert", "-O", "qcow2", "-B", "mid.qcow2", "-F", "qcow2", "top.qcow2", "copy.qcow2")
    qemu("check", "-q", "copy.qcow2")
    qemu("compare", "top.qcow2", "copy.qcow2")
    qemu("convert", "-O", "qcow2", "-B", "mid.qcow2", "-F", "qcow2", "top.qcow2", "copy2.qcow2")
    ours("compare", "copy.qcow2", "copy2.qcow2")


def test_independent_reader(ours, disk):
    """libqcow agrees on size and content."""
    import subprocess

    ours("convert", "-c", "-O", "qcow2", disk, "a.qcow2")
    told = subprocess.run(
        ["qcowinfo", "a.qcow2"], capture_output=True, text=True, check=True
    ).stdout
    assert "Media size" in told and str(disk.stat().st_size) in told


@pytest.mark.parametrize("aio", ["threads", "native", "io_uring"])
def test_bench_accepts_aio(cairn, folder, aio):
    cairn("create", "-q", "-f", "qcow2", "a.qcow2", "4M")
    cairn("bench", "-q", "-c", "20", "-i", aio, "-t", "none", "a.qcow2")
