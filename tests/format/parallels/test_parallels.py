"""Parallels images: ours read by QEMU and ploop, QEMU's read by us, images that lie."""
# Packages: ploop
import hashlib
import random
import struct

import pytest

from conftest import CAIRN, call

pytestmark = pytest.mark.any_engine

MIB = 1 << 20
IN_USE = 0x746F6E59


@pytest.fixture
def patch():
    def change(name, at, fmt, *values):
        with open(name, "r+b") as image:
            image.seek(at)
            image.write(struct.pack("<" + fmt, *values))

    return change


def number(name, at, fmt="I"):
    with open(name, "rb") as image:
        image.seek(at)
        return struct.unpack("<" + fmt, image.read(struct.calcsize(fmt)))[0]


def bytes_of(name):
    with open(name, "rb") as image:
        return image.read()


@pytest.fixture
def filled(folder, cairn):
    """4 MiB on as many clusters, the Nth one of bytes N + 1, in the order of the disk."""
    cairn("create", "-q", "-f", "parallels", "a.hdd", "4M")
    cairn(
        "io",
        "-f",
        "parallels",
        *[word for i in range(4) for word in ("-c", f"write -P {i + 1} {i}M 1M")],
        "a.hdd",
    )
    return "a.hdd"


@pytest.mark.parametrize("cluster", ["512", "1000", "64k", "1M", "3M"])
@pytest.mark.parametrize("size", ["0", "1", "513", "1025k", "10M"])
def test_created_as_qemu_does(folder, ours, qemu, cluster, size):
    mine = ours("create", "-f", "parallels", "-o", f"cluster_size={cluster}", "a.hdd", size)
    theirs = qemu("create", "-f", "parallels", "-o", f"cluster_size={cluster}", "b.hdd", size)
    assert mine.out.replace("a.hdd", "b.hdd") == theirs.out
    assert bytes_of("a.hdd") == bytes_of("b.hdd")


def test_what_qemu_says_of_options_and_verbs(folder, ours, qemu):
    assert (
        ours("create", "-f", "parallels", "-o", "help", "x").out
        == qemu("create", "-f", "parallels", "-o", "help", "x").out
    )
    ours("create", "-q", "-f", "parallels", "a.hdd", "10M")
    for words in (
        ["info", "a.hdd"],
        ["info", "--output=json", "a.hdd"],
        ["check", "a.hdd"],
        ["map", "--output=json", "a.hdd"],
        ["resize", "a.hdd", "20M"],
        ["snapshot", "-c", "X", "a.hdd"],
        ["commit", "a.hdd"],
        ["measure", "-O", "parallels", "a.hdd"],
        ["convert", "-c", "-O", "parallels", "a.hdd", "b.hdd"],
        ["create", "-f", "parallels", "-o", "cluster_size=0", "x", "1M"],
        ["create", "-f", "parallels", "-o", "cluster_size=2147483647", "x", "1M"],
        ["create", "-f", "parallels", "-o", "cluster_size=512", "x", "3T"],
        ["create", "-f", "parallels", "-b", "a.hdd", "-F", "parallels", "x"],
    ):
        mine, theirs = ours(*words, ok=False), qemu(*words, ok=False)
        assert (mine.code, mine.out, mine.err) == (theirs.code, theirs.out, theirs.err), words


@pytest.mark.parametrize(
    "words, message",
    [
        (["-o", "cluster_size=2143297536", "x.hdd", "1M"], "Cluster size is too large"),
        (
            ["-o", "cluster_size=512", "x.hdd", str((1 << 41) - 512)],
            "Image size is too large for this cluster size",
        ),
    ],
)
def test_what_could_not_be_opened_is_not_created(folder, cairn, words, message):
    result = cairn("create", "-f", "parallels", *words, ok=False)
    assert result.code == 1 and message in result.err


@pytest.mark.parametrize("cluster", ["512", "31k", "64k", "1M"])
def test_both_ways(disk, cairn, qemu, cluster):
    cairn("convert", "-o", f"cluster_size={cluster}", disk, "ours.hdd")
    qemu("check", "-f", "parallels", "ours.hdd")
    qemu("compare", "-F", "parallels", disk, "ours.hdd")
    qemu("convert", "-O", "parallels", "-o", f"cluster_size={cluster}", disk, "theirs.hdd")
    cairn("compare", disk, "theirs.hdd")
    assert cairn("check", "theirs.hdd", "--output=json").json()["check-errors"] == 0
    assert (
        cairn("map", "--output=json", "theirs.hdd").out
        == qemu("map", "--output=json", "theirs.hdd").out
    )
    if cluster in ("64k", "1M"):
        # ploop knows these sizes only, and no sparse files.
        with open("dense.hdd", "wb") as dense:
            dense.write(bytes_of("ours.hdd"))
        call("ploop", "check", "-F", "dense.hdd")


def test_allocation(folder, cairn, qemu):
    """Holes first, then the end; what is free at the end leaves the file."""
    cairn("create", "-q", "-f", "parallels", "a.hdd", "10M")
    assert number("a.hdd", 44) == 0
    cairn(
        "io",
        "-f",
        "parallels",
        "-d",
        "unmap",
        "-c",
        "write -P 1 5M 4k",
        "-c",
        "write -P 2 1020k 8k",
        "-c",
        "write -z 5M 1M",
        "-c",
        "flush",
        "-c",
        "write -P 3 7M 2M",
        "-c",
        "discard 0 1M",
        "-c",
        "flush",
        "-c",
        "write -P 4 3M 512",
        "a.hdd",
    )
    assert [number("a.hdd", 64 + 4 * i) for i in range(10)] == [0, 3, 0, 2, 0, 0, 0, 1, 4, 0]
    assert len(bytes_of("a.hdd")) == 5 * MIB and number("a.hdd", 44) == 0
    cairn(
        "io",
        "-f",
        "parallels",
        "-d",
        "unmap",
        "-c",
        "read -P 0 3146240 1000000",
        "-c",
        "discard 8M 1M",
        "a.hdd",
    )
    assert len(bytes_of("a.hdd")) == 4 * MIB
    qemu("check", "a.hdd")


def test_opening_for_writing_changes_nothing(filled, cairn):
    before = bytes_of(filled)
    cairn("io", "-f", "parallels", "-c", "read 0 4k", filled)
    assert bytes_of(filled) == before


@pytest.mark.parametrize("mode", ["falloc", "truncate"])
def test_space_for_later_is_cut_off(folder, cairn, mode):
    cairn("create", "-q", "-f", "parallels", "a.hdd", "10M")
    tree = f"driver=parallels,prealloc-size=3M,prealloc-mode={mode},file.filename=a.hdd"
    out = cairn("io", "--image-opts", "-c", "write 0 4k", "-c", "map", tree).out
    assert "4 KiB" in out and len(bytes_of("a.hdd")) == 2 * MIB
    bad = cairn("io", "--image-opts", "-c", "read 0 1", tree.replace(mode, "sparse"), ok=False)
    assert bad.code == 1 and "invalid parameter value: sparse" in bad.err


def test_over_a_backing_node(filled, cairn, qemu):
    """Only by options: no image names one. Holes are filled with what lies below."""
    with open("base.raw", "wb") as base:
        base.write(b"\x0b" * (3 * MIB))
    cairn("io", "-f", "parallels", "-d", "unmap", "-c", "discard 1M 2M", "a.hdd")
    tree = "driver=parallels,file.filename=a.hdd,backing.driver=raw,backing.file.filename=base.raw"
    cairn(
        "io",
        "--image-opts",
        "-c",
        "read -P 11 1M 2M",
        "-c",
        "write -P 9 1100k 4k",
        "-c",
        "write -z 2M 64k",
        "-c",
        "discard 0 1M",
        tree,
    )
    for image in (tree, "driver=parallels,file.filename=a.hdd"):
        cairn(
            "io",
            "-r",
            "--image-opts",
            "-c",
            "read -P 1 0 1M",
            "-c",
            "read -P 11 1M 76k",
            "-c",
            "read -P 9 1100k 4k",
            "-c",
            "read -P 0 2M 64k",
            "-c",
            "read -P 11 2112k 900k",
            image,
        )
    qemu("check", "a.hdd")


def old_image(name, tracks=63, entries=33, sectors=2000, data_off=0):
    header = struct.pack(
        "<16sIIIIIQIIIQ",
        b"WithoutFreeSpace",
        2,
        16,
        3,
        tracks,
        entries,
        sectors | 7 << 32,
        0,
        data_off,
        0,
        0,
    )
    table = struct.pack("<I", 1) + bytes(4 * (entries - 1))
    with open(name, "wb") as image:
        image.write((header + table).ljust(512, b"\0") + b"\x5a" * (tracks * 512))


def test_old_kind(folder, cairn, qemu):
    old_image("a.hdd")
    assert cairn("info", "--output=json", "a.hdd").json()["virtual-size"] == 2000 * 512
    cairn(
        "io",
        "-f",
        "parallels",
        "-c",
        "read -P 0x5a 0 32256",
        "-c",
        "read -P 0 32256 32256",
        "-c",
        "write -P 7 900k 4k",
        "-c",
        "write -P 8 0 512",
        "a.hdd",
    )
    assert (
        bytes_of("a.hdd")[:16] == b"WithoutFreeSpace" and number("a.hdd", 36, "Q") == 2000 | 7 << 32
    )
    assert number("a.hdd", 64 + 4 * (900 * 1024 // 32256)) == 64
    qemu("check", "-f", "parallels", "a.hdd")
    qemu("convert", "-O", "raw", "a.hdd", "b.raw")
    cairn("compare", "a.hdd", "b.raw")


CHECKS = {
    "unclean": lambda patch: patch("a.hdd", 44, "I", IN_USE),
    "data_off_small": lambda patch: patch("a.hdd", 48, "I", 1),
    "data_off_large": lambda patch: patch("a.hdd", 48, "I", 0xFFFFFFFF),
    "leak": lambda patch: open("a.hdd", "ab").write(b"x" * (3 * MIB)),
    "leak_small": lambda patch: open("a.hdd", "ab").write(b"x" * 512),
    "fragmented": lambda patch: patch("a.hdd", 64, "II", 2, 1),
}


@pytest.mark.parametrize("damage", CHECKS)
def test_check_says_what_qemu_says(filled, ours, qemu, patch, damage):
    CHECKS[damage](patch)
    with open("b.hdd", "wb") as copy:
        copy.write(bytes_of("a.hdd"))
    for words in ([], ["--output=json"], ["-r", "leaks"], ["-r", "all"], []):
        mine, theirs = ours("check", *words, "a.hdd", ok=False), qemu(
            "check", *words, "b.hdd", ok=False
        )
        assert (mine.code, mine.out.replace("a.hdd", "b.hdd"), mine.err) == (
            theirs.code,
            theirs.out,
            theirs.err,
        ), words
    assert bytes_of("a.hdd") == bytes_of("b.hdd")


@pytest.mark.parametrize("entries", [[1, 1, 3, 4], [1, 2, 2, 2]])
def test_duplicates_get_copies(filled, ours, qemu, patch, entries):
    patch("a.hdd", 64, "4I", *entries)
    with open("b.hdd", "wb") as copy:
        copy.write(bytes_of("a.hdd"))
    # Where QEMU gives up we only report.
    mine = ours("check", "a.hdd", ok=False)
    assert mine.code == 2 and "ERROR duplicate offset in BAT entry" in mine.err
    mine, theirs = ours("check", "-r", "all", "a.hdd"), qemu("check", "-r", "all", "b.hdd")
    assert (mine.code, mine.err) == (theirs.code, theirs.err)
    qemu("check", "a.hdd")
    qemu("compare", "a.hdd", "b.hdd")


def test_writing_repairs_as_qemu_does(filled, cairn, qemu, patch):
    patch("a.hdd", 44, "I", IN_USE)
    patch("a.hdd", 68, "I", 1)
    result = cairn(
        "io", "-f", "parallels", "-c", "write -P 9 0 1M", "-c", "read -P 1 1M 1M", "a.hdd"
    )
    assert "Repairing image was not closed correctly" in result.err
    assert "Repairing duplicate offset in BAT entry 1" in result.err
    qemu("check", "a.hdd")


def test_killed_writer(filled, cairn, qemu):
    """The mark stays, and the space for later; the next writer brings both in order."""
    call(
        "sh",
        "-c",
        f"{CAIRN} io -f parallels -c 'write -P 8 0 4k' -c 'flush' -c 'abort' a.hdd",
        ok=False,
    )
    assert number("a.hdd", 44) == IN_USE
    assert cairn("check", "a.hdd", ok=False).code == 2
    cairn("check", "-r", "all", "a.hdd")
    qemu("check", "a.hdd")
    cairn("io", "-f", "parallels", "-c", "read -P 8 0 4k", "a.hdd")


def test_a_cluster_that_the_file_cuts_is_kept(filled, cairn, qemu):
    with open("a.hdd", "r+b") as image:
        image.truncate(5 * MIB - 1000)
    result = cairn("check", "a.hdd", ok=False)
    assert result.code == 2 and "ERROR cluster 3 is outside image" in result.err
    cairn("check", "-r", "all", "a.hdd")
    qemu("check", "a.hdd")
    cairn("io", "-f", "parallels", "-c", f"read -P 4 3M {MIB - 1024}", "a.hdd")


def test_an_entry_past_the_end_is_dropped(filled, cairn, qemu, patch):
    patch("a.hdd", 68, "I", 4711)
    result = cairn("check", "a.hdd", ok=False)
    assert result.code == 2 and "ERROR cluster 1 is outside image" in result.err
    assert (
        cairn("io", "-f", "parallels", "-r", "-c", "read -P 0 1M 1M", "a.hdd", ok=False).code == 1
    )
    assert cairn("io", "-f", "parallels", "-c", "read 1M 1M", "a.hdd", ok=False).code == 1
    cairn("check", "-r", "all", "a.hdd")
    qemu("check", "a.hdd")
    assert number("a.hdd", 68) == 0


def test_a_file_that_ends_before_its_data(filled, cairn):
    with open("a.hdd", "r+b") as file:
        file.truncate(40000)
    cairn("check", "-r", "all", "a.hdd")
    cairn("check", "a.hdd")
    cairn("io", "-f", "parallels", "-c", "write -P 9 0 1M", "-c", "read -P 9 0 1M", "a.hdd")


def test_clusters_below_the_data(filled, cairn, qemu, patch):
    patch("a.hdd", 48, "I", 4096)
    result = cairn("check", "a.hdd", ok=False)
    assert result.code == 2 and "ERROR cluster 0 is below the data area" in result.err
    cairn("io", "-f", "parallels", "-c", "write -P 9 0 512", "-c", "read -P 1 512 512", "a.hdd")
    assert number("a.hdd", 48) == 2048
    qemu("check", "a.hdd")


def test_data_that_begins_within_a_cluster(filled, cairn, qemu, patch):
    patch("a.hdd", 48, "I", 2049)
    assert "data_off field has incorrect value" in cairn("check", "a.hdd", ok=False).err
    cairn("io", "-f", "parallels", "-c", "write -P 9 0 512", "a.hdd")
    assert number("a.hdd", 48) == 2048
    qemu("check", "a.hdd")


def test_leaked_bytes_do_not_show_up(folder, cairn):
    cairn("create", "-q", "-f", "parallels", "a.hdd", "4M")
    with open("a.hdd", "ab") as image:
        image.write(b"x" * MIB)
    cairn(
        "io",
        "-f",
        "parallels",
        "-c",
        "write -P 9 0 512",
        "-c",
        f"read -P 0 512 {MIB - 512}",
        "a.hdd",
    )


# --- the extension ---

BITMAP = "e4f2eed0-37fe-4539-b50b-85d2e7fd235f"


def extension(
    sectors,
    dirty,
    l1,
    granularity=128,
    magic=0xAB234CEF23DCEA87,
    feature=0x20385FAE252CB34A,
    flags=0,
    l1_size=None,
    data_size=None,
    disk=None,
):
    data = struct.pack(
        "<Q16sII",
        disk or sectors,
        bytes.fromhex(BITMAP.replace("-", "")),
        granularity,
        len(l1) if l1_size is None else l1_size,
    ) + struct.pack(f"<{len(l1)}Q", *l1)
    size = len(data) if data_size is None else data_size
    body = (struct.pack("<QQII", feature, flags, size, 0) + data).ljust(MIB - 24, b"\0")
    return struct.pack("<Q", magic) + hashlib.md5(body).digest() + body, bytes(dirty).ljust(
        MIB, b"\0"
    )


@pytest.fixture
def extended(filled, patch):
    """Two more clusters: the extension, and the bits of its bitmap."""

    def add(dirty=b"\x06", l1=(6 * 2048,), **more):
        patch("a.hdd", 56, "Q", 5 * 2048)
        with open("a.hdd", "ab") as image:
            for part in extension(8192, dirty, list(l1), **more):
                image.write(part)
        return "a.hdd"

    return add


def test_bitmaps_are_read(extended, cairn, qemu):
    extended()
    assert cairn("check", "a.hdd").code == 0
    served = call(
        "/usr/bin/python3",
        "-c",
        f"""
import nbd, subprocess, time, os
server = subprocess.Popen(['{CAIRN}', 'nbd', '-r', '-k', os.path.abspath('s'), '-B', '{BITMAP}', '-f', 'parallels', 'a.hdd'])
while not os.path.exists('s'): time.sleep(0.01)
h = nbd.NBD()
h.add_meta_context('qemu:dirty-bitmap:{BITMAP}')
h.connect_unix('s')
found = []
h.block_status(h.get_size(), 0, lambda name, offset, entries, error: found.extend(entries))
print(found)
h.shutdown()
server.wait()
""",
    )
    assert served.out.strip() == str([65536, 0, 131072, 1, 4194304 - 196608, 0])


EXTENSION_LIES = {
    "magic": dict(magic=0x1234),
    "flags": dict(flags=1),
    "feature": dict(feature=0x4711),
    "data_size": dict(data_size=MIB),
    "small": dict(data_size=24),
    "disk": dict(disk=4096),
    "l1_data": dict(l1_size=5),
    "l1_size": dict(l1=(6 * 2048, 0)),
}


@pytest.mark.parametrize("lie", EXTENSION_LIES)
def test_extensions_that_lie(extended, ours, qemu, lie):
    extended(**EXTENSION_LIES[lie])
    mine, theirs = ours("check", "a.hdd", ok=False), qemu("check", "a.hdd", ok=False)
    assert mine.code == 1 and mine.err == theirs.err


def test_an_extension_with_a_wrong_checksum(extended, ours, qemu, patch):
    extended()
    patch("a.hdd", 5 * MIB + 1000, "I", 1)
    mine, theirs = ours("check", "a.hdd", ok=False), qemu("check", "a.hdd", ok=False)
    assert mine.code == 1 and mine.err == theirs.err


@pytest.mark.parametrize("granularity", [0, 3, 1 << 23])
def test_granularities_that_no_bitmap_has(extended, cairn, granularity):
    extended(granularity=granularity)
    result = cairn("check", "a.hdd", ok=False)
    assert result.code == 1 and "Invalid bitmap granularity" in result.err


@pytest.mark.parametrize("sector", [1 << 40, 0xFFFFFFFFFFFFFFFF, 7 * 2048])
def test_bits_outside_of_the_file(extended, cairn, sector):
    extended(l1=(sector,))
    result = cairn("check", "a.hdd", ok=False)
    assert result.code == 1 and "Failed to read bitmap data cluster" in result.err


def test_writers_give_the_extension_up(extended, cairn, qemu):
    name = extended()
    cairn("io", "-f", "parallels", "-c", "read 0 4k", name)
    assert number(name, 56, "Q") == 5 * 2048 and len(bytes_of(name)) == 7 * MIB
    cairn("io", "-f", "parallels", "-c", "write -P 7 0 4k", name)
    assert number(name, 56, "Q") == 0 and len(bytes_of(name)) == 5 * MIB
    qemu("check", name)


def test_what_must_not_be_lost_is_not_written(extended, cairn):
    name = extended(flags=1)
    before = bytes_of(name)
    result = cairn("io", "-f", "parallels", "-c", "write 0 4k", name, ok=False)
    assert result.code == 1 and "Flags for extension feature are unsupported" in result.err
    assert bytes_of(name) == before


# --- headers that lie ---

LIES = [
    (16, "I", 1, "Image not in Parallels format"),
    (16, "I", 3, "Image not in Parallels format"),
    (28, "I", 0, "Invalid image: Zero sectors per track"),
    (28, "I", 4186128, "Invalid image: Too big cluster"),
    (28, "I", 0xFFFFFFFF, "Invalid image: Too big cluster"),
    (32, "I", 0x20000000, "Catalog too large"),
    (32, "I", 0x40000001, "Catalog too large"),
    (32, "I", 0xFFFFFFFF, "Catalog too large"),
    (36, "Q", (1 << 64) - 1, "Could not refresh total sector count: File too large"),
    (36, "Q", (1 << 63) - 1, "Could not refresh total sector count: File too large"),
    (56, "Q", (1 << 54) - 1, "Invalid image: Too big offset"),
]
STRICTER = [
    (32, "I", 0x1FFFFFFF, "past the end of the file"),
    (32, "I", 3, "BAT does not cover the disk"),
    (28, "I", 1, "BAT does not cover the disk"),
    (36, "Q", 8193, "BAT does not cover the disk"),
]


@pytest.mark.parametrize("at, fmt, value, message", LIES)
def test_lies_are_refused_as_qemu_does(filled, ours, qemu, patch, at, fmt, value, message):
    patch("a.hdd", at, fmt, value)
    mine = ours("info", "-f", "parallels", "a.hdd", ok=False)
    assert mine.code == 1 and message in mine.err
    assert mine.err == qemu("info", "-f", "parallels", "a.hdd", ok=False).err


@pytest.mark.parametrize("at, fmt, value, message", STRICTER)
def test_lies_that_qemu_believes(filled, cairn, patch, at, fmt, value, message):
    patch("a.hdd", at, fmt, value)
    result = cairn("info", "-f", "parallels", "a.hdd", ok=False)
    assert result.code == 1 and message in result.err and "a.hdd" in result.err


@pytest.mark.parametrize("length", [0, 40, 63])
def test_headers_that_the_file_cuts(filled, cairn, length):
    with open("a.hdd", "r+b") as image:
        image.truncate(length)
    result = cairn("info", "-f", "parallels", "a.hdd", ok=False)
    assert result.code == 1 and "Image not in Parallels format" in result.err


def test_marks_that_nobody_knows(filled, cairn, patch):
    patch("a.hdd", 44, "I", 0x01020304)
    assert "unknown value" in cairn("check", "a.hdd").err
    patch("a.hdd", 44, "I", 0)
    patch("a.hdd", 52, "I", 1)
    result = cairn(
        "io", "-f", "parallels", "-c", "read -P 1 0 1M", "-c", "write -P 9 0 512", "a.hdd"
    )
    assert "says that the disk is empty" in result.err
    assert number("a.hdd", 52) == 0


def test_entries_at_random_are_survived(folder, cairn):
    source = random.Random(5)
    for case in range(8):
        cairn(
            "create",
            "--overwrite",
            "-q",
            "-f",
            "parallels",
            "-o",
            "cluster_size=4k",
            "a.hdd",
            "256k",
        )
        with open("a.hdd", "r+b") as image:
            image.seek(64)
            image.write(
                struct.pack(
                    "<64I",
                    *[
                        source.choice([0, 1, 2, 3, 5, 40, 0xFFFFFFFF, source.randrange(70)])
                        for _ in range(64)
                    ],
                )
            )
            image.truncate(source.randrange(40000, 300000))
        cairn("check", "a.hdd", ok=False)
        cairn("check", "-r", "all", "a.hdd")
        assert cairn("check", "a.hdd").code == 0
