"""VDI images: ours read by QEMU, QEMU's read by us, images that lie."""
import struct

import pytest

pytestmark = pytest.mark.any_engine

MIB = 1 << 20


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


def without_uuids(name):
    data = bytearray(open(name, "rb").read())
    data[392:424] = bytes(32)
    return data


@pytest.mark.parametrize("size", ["0", "1M", "10M", "200M", "300M"])
@pytest.mark.parametrize("static", ["off", "on"])
def test_created_as_qemu_does(folder, ours, qemu, size, static):
    mine = ours("create", "-f", "vdi", "-o", f"static={static}", "a.vdi", size)
    theirs = qemu("create", "-f", "vdi", "-o", f"static={static}", "b.vdi", size)
    assert mine.out.replace("a.vdi", "b.vdi") == theirs.out
    assert without_uuids("a.vdi") == without_uuids("b.vdi")
    assert bytes(open("a.vdi", "rb").read()[392:424]) not in (
        bytes(32),
        bytes(open("b.vdi", "rb").read()[392:424]),
    )


@pytest.mark.parametrize("static", ["off", "on"])
def test_both_ways(disk, cairn, qemu, static):
    cairn("convert", "-o", f"static={static}", disk, "ours.vdi")
    qemu("check", "ours.vdi")
    qemu("compare", disk, "ours.vdi")
    qemu("convert", "-O", "vdi", "-o", f"static={static}", disk, "theirs.vdi")
    cairn("compare", disk, "theirs.vdi")
    assert cairn("check", "theirs.vdi", "--output=json").json()["check-errors"] == 0
    assert cairn("map", "--output=json", "theirs.vdi").json()


def test_layout_of_the_virtualbox_kind(folder, cairn, qemu):
    """The map at 1 MiB, the data at 2 MiB, and legacy geometry behind the fields that we know."""
    header = bytearray(2 * MIB)
    header[
        : len(b"<<< Oracle VM VirtualBox Disk Image >>>\n")
    ] = b"<<< Oracle VM VirtualBox Disk Image >>>\n"
    struct.pack_into("<IIIII", header, 64, 0xBEDA107F, 0x10001, 400, 1, 0)
    struct.pack_into("<II", header, 340, MIB, 2 * MIB)
    struct.pack_into("<I", header, 360, 512)
    struct.pack_into("<QIIII", header, 368, 8 * MIB, MIB, 0, 8, 1)
    header[392:424] = bytes(range(1, 33))
    struct.pack_into("<IIII", header, 456, 16, 16, 63, 512)
    header[MIB : MIB + 32] = b"\xff" * 32
    struct.pack_into("<III", header, MIB, 0xFFFFFFFF, 0, 0xFFFFFFFE)
    with open("box.vdi", "wb") as out:
        out.write(header + b"\x5a" * MIB)
    cairn(
        "io",
        "-f",
        "vdi",
        "-c",
        "read -P 0x5a 1M 1M",
        "-c",
        "read -P 0 2M 1M",
        "-c",
        "write -P 7 5M 4k",
        "box.vdi",
    )
    qemu("check", "box.vdi")
    data = open("box.vdi", "rb").read()
    assert data[456:472] == header[456:472] and data[392:408] == header[392:408]
    assert number("box.vdi", MIB + 5 * 4) == 1 and number("box.vdi", 388) == 2


def test_blocks_in_the_order_of_writing(folder, cairn, qemu):
    cairn("create", "-q", "-f", "vdi", "a.vdi", "300M")
    cairn(
        "io",
        "-f",
        "vdi",
        "-c",
        "write 5M 4k",
        "-c",
        "write 200M 2M",
        "-c",
        "write 1020k 8k",
        "a.vdi",
    )
    entries = [number("a.vdi", 512 + block * 4) for block in (5, 200, 201, 0, 1)]
    assert entries == [0, 1, 2, 3, 4] and number("a.vdi", 388) == 5
    assert len(open("a.vdi", "rb").read()) == 2048 + 5 * MIB
    qemu("check", "a.vdi")


def test_discarded_blocks_leave_the_file(disk, cairn, qemu):
    cairn("convert", disk, "a.vdi")
    before = number("a.vdi", 388)
    cairn("io", "-f", "vdi", "-d", "unmap", "-c", "discard 0 1M", "a.vdi")
    qemu("check", "a.vdi")
    assert number("a.vdi", 388) == before - 1
    assert len(open("a.vdi", "rb").read()) == number("a.vdi", 344) + (before - 1) * MIB
    with open(disk, "r+b") as raw:
        raw.write(bytes(MIB))
    qemu("compare", disk, "a.vdi")


@pytest.mark.parametrize("sizes", [["300G", "20M"], ["4M", "1G"], ["2M", "8M"]])
def test_resize(disk, cairn, qemu, sizes):
    cairn("convert", disk, "a.vdi")
    qemu("convert", "-O", "raw", disk, "b.raw")
    for size in sizes:
        cairn("resize", "--shrink", "a.vdi", size)
        qemu("resize", "--shrink", "-f", "raw", "b.raw", size)
        qemu("check", "a.vdi")
        qemu("compare", "-f", "raw", "-F", "vdi", "b.raw", "a.vdi")


LIES = [
    (64, "I", 0, "Image not in VDI format (bad signature 00000000)"),
    (68, "I", 0x10000, "unsupported VDI image (version 1.0)"),
    (68, "I", 0x10002, "unsupported VDI image (version 1.2)"),
    (68, "I", 0x2, "unsupported VDI image (version 0.2)"),
    (340, "I", 0x201, "unsupported VDI image (unaligned block map offset 0x201)"),
    (344, "I", 0x401, "unsupported VDI image (unaligned data offset 0x401)"),
    (344, "I", 0x214, "unsupported VDI image (unaligned data offset 0x214)"),
    (360, "I", 0, "unsupported VDI image (sector size 0 is not 512)"),
    (360, "I", 4096, "unsupported VDI image (sector size 4096 is not 512)"),
    (376, "I", 1048575, "unsupported VDI image (block size 1048575 is not 1048576)"),
    (376, "I", 1114112, "unsupported VDI image (block size 1114112 is not 1048576)"),
    (376, "I", 131072, "unsupported VDI image (block size 131072 is not 1048576)"),
    (376, "I", 0, "unsupported VDI image (block size 0 is not 1048576)"),
    (
        368,
        "Q",
        0x7FFFFFFFFFFFFFFF,
        "Unsupported VDI image size (size is 0x7fffffffffffffff, max supported is 0x1fffff8000000)",
    ),
    (
        368,
        "Q",
        0x1FFFFF8010000,
        "Unsupported VDI image size (size is 0x1fffff8010000, max supported is 0x1fffff8000000)",
    ),
    (
        384,
        "I",
        63,
        "unsupported VDI image (disk size 67108864, image bitmap has room for 66060288)",
    ),
    (384, "I", 0x1FFFFF81, "unsupported VDI image (too many blocks 536870785, max is 536870784)"),
    (424, "I", 1, "unsupported VDI image (non-NULL link UUID)"),
    (440, "I", 1, "unsupported VDI image (non-NULL parent UUID)"),
]
STRICTER = [
    (384, "I", 0x1FFFFF80, "is before the end of the block map"),
    (340, "I", 0, "is in the header"),
    (344, "I", 0, "is before the end of the block map"),
    (344, "I", 512, "is before the end of the block map"),
    (380, "I", 512, "private data"),
    (76, "I", 0, "image type 0"),
    (76, "I", 9, "image type 9"),
]


@pytest.mark.parametrize("at, fmt, value, message", LIES)
def test_lies_are_refused_as_qemu_does(folder, ours, qemu, patch, at, fmt, value, message):
    ours("create", "-q", "-f", "vdi", "a.vdi", "64M")
    patch("a.vdi", at, fmt, value)
    mine = ours("info", "-f", "vdi", "a.vdi", ok=False)
    assert mine.code == 1 and message in mine.err
    assert mine.err == qemu("info", "-f", "vdi", "a.vdi", ok=False).err


@pytest.mark.parametrize("at, fmt, value, message", STRICTER)
def test_lies_that_qemu_believes(folder, cairn, patch, at, fmt, value, message):
    cairn("create", "-q", "-f", "vdi", "a.vdi", "64M")
    patch("a.vdi", at, fmt, value)
    result = cairn("info", "-f", "vdi", "a.vdi", ok=False)
    assert result.code == 1 and message in result.err and "a.vdi" in result.err


def test_a_map_that_the_file_cuts(folder, cairn):
    cairn("create", "-q", "-f", "vdi", "a.vdi", "300M")
    with open("a.vdi", "r+b") as image:
        image.truncate(1024)
    assert "past the end of the file" in cairn("info", "-f", "vdi", "a.vdi", ok=False).err


@pytest.mark.parametrize("kind", [3, 4])
def test_differencing_images_are_not_written(folder, cairn, patch, kind):
    cairn("create", "-q", "-f", "vdi", "a.vdi", "2M")
    patch("a.vdi", 76, "I", kind)
    assert "image" in cairn("info", "a.vdi").err
    assert cairn("io", "-f", "vdi", "-c", "write 0 4k", "a.vdi", ok=False).code == 1


@pytest.mark.parametrize("change", [(512, 64), (516, 0), (388, 2), (388, 0)])
def test_check_says_what_qemu_says_and_repairs(folder, cairn, ours, qemu, patch, change):
    cairn("create", "-q", "-f", "vdi", "a.vdi", "64M")
    cairn("io", "-f", "vdi", "-c", "write -P 9 0 1M", "a.vdi")
    patch("a.vdi", change[0], "I", change[1])
    mine, theirs = ours("check", "a.vdi", ok=False), qemu("check", "a.vdi", ok=False)
    assert (mine.code, mine.out, mine.err) == (theirs.code, theirs.out, theirs.err)
    cairn("check", "-r", "all", "a.vdi")
    qemu("check", "a.vdi")
    if change[0] != 512:
        cairn("io", "-f", "vdi", "-c", "read -P 9 0 1M", "a.vdi")


def test_a_stale_counter_does_not_cost_data(folder, cairn, qemu_io, patch):
    cairn("create", "-q", "-f", "vdi", "a.vdi", "64M")
    cairn("io", "-f", "vdi", "-c", "write -P 9 0 2M", "a.vdi")
    patch("a.vdi", 388, "I", 0)
    cairn("io", "-f", "vdi", "-c", "write -P 5 8M 1M", "a.vdi")
    qemu_io("a.vdi", "read -P 9 0 2M", "read -P 5 8M 1M", fmt="vdi")


@pytest.mark.parametrize("counter", [0xFFFFFFFF, 0xFFFFFFFE])
def test_an_impossible_counter_stops_writes(folder, cairn, patch, counter):
    cairn("create", "-q", "-f", "vdi", "a.vdi", "64M")
    patch("a.vdi", 388, "I", counter)
    before = open("a.vdi", "rb").read()
    assert cairn("io", "-f", "vdi", "-c", "write 0 4k", "a.vdi", ok=False).code == 1
    assert open("a.vdi", "rb").read() == before


def test_an_entry_that_points_nowhere(folder, cairn, patch):
    cairn("create", "-q", "-f", "vdi", "a.vdi", "64M")
    patch("a.vdi", 512, "I", 4711)
    result = cairn("convert", "a.vdi", "b.raw", ok=False)
    assert result.code == 1 and "block map" in result.err
