"""VHD images: ours read by QEMU and libvhdi's kin, QEMU's read by us, images that lie."""
# Packages: python3-libvhdi
import struct

import pytest
import pyvhdi

from conftest import sparse_disk

pytestmark = pytest.mark.any_engine

MIB = 1 << 20


def checksum(data, at):
    return ~(sum(data) - sum(data[at : at + 4])) & 0xFFFFFFFF


class Vhd:
    """A file whose footer and header fields can be set; checksums follow unless they are what is set."""

    def __init__(self, name):
        self.name = name
        self.bytes = bytearray(open(name, "rb").read())

    def put(self, at, fmt, *values):
        struct.pack_into(">" + fmt, self.bytes, at, *values)

    def get(self, at, fmt="I"):
        return struct.unpack_from(">" + fmt, self.bytes, at)[0]

    def seal(self):
        for at, length, where in ((0, 512, 64), (len(self.bytes) - 512, 512, 64), (512, 1024, 36)):
            if self.bytes[at : at + 8] in (b"conectix", b"cxsparse"):
                self.put(at + where, "I", checksum(self.bytes[at : at + length], where))

    def save(self, seal=True):
        if seal:
            self.seal()
        with open(self.name, "wb") as out:
            out.write(self.bytes)


def masked(name):
    data = bytearray(open(name, "rb").read())
    for at in range(0, len(data), 512):
        if data[at : at + 8] == b"conectix":
            assert struct.unpack_from(">I", data, at + 64)[0] == checksum(data[at : at + 512], 64)
            for begin, end in ((24, 28), (64, 84)):
                data[at + begin : at + end] = bytes(end - begin)
    return data


@pytest.mark.parametrize(
    "size", ["1", "34817", "10M", "504M", "528482305", "2G", "40G", "127G", "1T"]
)
@pytest.mark.parametrize("options", ["", "force_size=on", "subformat=fixed"])
def test_created_as_qemu_does(folder, ours, qemu, size, options):
    if options == "subformat=fixed" and size[-1] in "GT":
        size = "3M"
    words = ["-o", options] if options else []
    mine = ours("create", "-f", "vpc", *words, "a.vhd", size)
    theirs = qemu("create", "-f", "vpc", *words, "b.vhd", size)
    assert mine.out.replace("a.vhd", "b.vhd") == theirs.out
    assert masked("a.vhd") == masked("b.vhd")


@pytest.mark.parametrize(
    "options",
    ["force_size=on", "subformat=dynamic", "subformat=fixed", "subformat=fixed,force_size=on"],
)
def test_both_ways(disk, cairn, qemu, options):
    cairn("convert", "-O", "vpc", "-o", options, disk, "ours.vhd")
    qemu("compare", "-f", "raw", "-F", "vpc", disk, "ours.vhd")
    assert cairn("check", "-f", "vpc", "--output=json", "ours.vhd").json()["check-errors"] == 0
    qemu("convert", "-f", "raw", "-O", "vpc", "-o", options, disk, "theirs.vhd")
    cairn("compare", "-f", "raw", "-F", "vpc", disk, "theirs.vhd")


def test_a_fixed_image_is_known_by_its_tail(disk, cairn, ours, qemu):
    qemu("convert", "-f", "raw", "-O", "vpc", "-o", "subformat=fixed,force_size=on", disk, "a.vhd")
    assert cairn("info", "--output=json", "a.vhd").json()["format"] == "vpc"
    # Under QEMU's name it is what QEMU takes it for.
    assert ours("info", "--output=json", "a.vhd").json()["format"] == "raw"
    with open("a.vhd", "ab") as image:
        image.write(bytes(512))
    assert cairn("info", "--output=json", "a.vhd").json()["format"] == "raw"


def test_the_footer_never_becomes_data(folder, cairn, qemu, qemu_io):
    """Old writers leave a gap between the table and the footer: a new block must not show it."""
    cairn("create", "-q", "-f", "vpc", "-o", "force_size=on", "a.vhd", "8M")
    image = Vhd("a.vhd")
    footer = image.bytes[-512:]
    image.bytes = image.bytes[:-512] + bytes(3 * 512) + footer
    image.save()
    cairn("io", "-f", "vpc", "-c", "write -P 7 1M 4k", "a.vhd")
    qemu_io("a.vhd", "read -P 7 1M 4k", "read -P 0 0 1M", "read -P 0 1028k 1020k", fmt="vpc")
    assert open("a.vhd", "rb").read()[-512:] == open("a.vhd", "rb").read()[:512]


@pytest.mark.parametrize(
    "creator, mode, expected",
    [
        (b"vpc ", None, 67125248),
        (b"qemu", None, 67125248),
        (b"win ", None, 67108864),
        (b"tap\0", None, 67108864),
        (b"win ", "chs", 67125248),
        (b"qemu", "current_size", 67108864),
    ],
)
def test_which_size_counts(folder, cairn, qemu, creator, mode, expected):
    qemu("create", "-q", "-f", "vpc", "a.vhd", "64M")
    image = Vhd("a.vhd")
    for at in (0, len(image.bytes) - 512):
        image.bytes[at + 28 : at + 32] = creator
        image.put(at + 48, "Q", 64 * MIB)
    image.save()
    name = "driver=vpc,file.filename=a.vhd" + (f",force_size_calc={mode}" if mode else "")
    for program in (cairn, qemu):
        assert (
            program("info", "--output=json", "--image-opts", name).json()["virtual-size"]
            == expected
        )


@pytest.mark.parametrize("options", ["force_size=on", "subformat=fixed,force_size=on"])
def test_resize(disk, cairn, qemu, options):
    cairn("convert", "-O", "vpc", "-o", options, disk, "a.vhd")
    qemu("convert", "-O", "raw", disk, "b.raw")
    for size in ("9M", "2M", "700M" if "fixed" not in options else "20M"):
        cairn("resize", "-f", "vpc", "--shrink", "a.vhd", size)
        qemu("resize", "-q", "--shrink", "-f", "raw", "b.raw", size)
        qemu("compare", "-f", "raw", "-F", "vpc", "b.raw", "a.vhd")
        assert cairn("check", "-f", "vpc", "--output=json", "a.vhd").json()["check-errors"] == 0


LIES = [
    (0, "B", 0x64, True, "invalid VPC image"),
    (64, "I", 0, False, "Incorrect header checksum"),
    (512, "B", 0x64, True, "Invalid header magic"),
    (16, "Q", 1 << 40, True, "Invalid header magic"),
    (16, "Q", (1 << 64) - 1, True, "Error reading dynamic VHD header"),
    (544, "I", 0, True, "Invalid block size 0"),
    (544, "I", 128, True, "Invalid block size 128"),
    (544, "I", 256, True, "Invalid block size 256"),
    (544, "I", 3 * MIB, True, "Invalid block size 3145728"),
    (544, "I", 0x12345678, True, "Invalid block size 305419896"),
    (540, "I", 0, True, "Page table too small"),
    (540, "I", 31, True, "Page table too small"),
    (540, "I", 0x20000000, True, "Max Table Entries too large (536870912)"),
    (540, "I", 0x40000001, True, "Max Table Entries too large (1073741825)"),
    (540, "I", 0xFFFFFFFF, True, "Max Table Entries too large (-1)"),
    (528, "Q", 1 << 40, True, "free_data_block_offset points after the end of file"),
    (528, "Q", 1 << 63, True, "Error reading pagetable"),
    (1536, "I", 0x00FFFFFF, True, "free_data_block_offset points after the end of file"),
    (1536, "I", 0xFFFFFFFE, True, "free_data_block_offset points after the end of file"),
    (544, "I", 4 * MIB, True, "free_data_block_offset points after the end of file"),
    (48, "Q", (1 << 64) - 1, True, "File too large"),
]
STRICTER = [
    (544, "I", 512, "blocks of 512 bytes are not supported"),
    (544, "I", 2048, "blocks of 2048 bytes are not supported"),
    (540, "I", 0x1FFFFFFF, "truncated"),
    (528, "Q", 0x400, "overlaps with the headers"),
    (528, "Q", 0, "overlaps with the headers"),
    (1536, "I", 0, "overlaps with the headers or the table"),
    (1536, "I", 1, "overlaps with the headers or the table"),
    (60, "I", 2, "invalid VPC image"),
]


@pytest.fixture
def victim(folder, cairn):
    cairn("create", "-q", "-f", "vpc", "-o", "force_size=on", "a.vhd", "64M")
    cairn("io", "-f", "vpc", "-c", "write -P 1 0 4k", "a.vhd")
    return Vhd("a.vhd")


@pytest.mark.parametrize("at, fmt, value, seal, message", LIES)
def test_lies_are_refused_as_qemu_does(victim, ours, qemu, at, fmt, value, seal, message):
    victim.put(at, fmt, value)
    victim.save(seal)
    mine, theirs = (tool("info", "-f", "vpc", "a.vhd", ok=False) for tool in (ours, qemu))
    assert mine.code == theirs.code == 1 and message in mine.err and message in theirs.err


@pytest.mark.parametrize("at, fmt, value, message", STRICTER)
def test_lies_that_qemu_believes(victim, cairn, at, fmt, value, message):
    victim.put(at, fmt, value)
    victim.save()
    result = cairn("info", "-f", "vpc", "a.vhd", ok=False)
    assert result.code == 1 and message in result.err and "a.vhd" in result.err


def test_blocks_that_share_space_are_only_read(victim, cairn):
    victim.put(1540, "I", victim.get(1536))
    victim.save()
    cairn("io", "-r", "-f", "vpc", "-c", "read -P 1 2M 4k", "a.vhd")
    result = cairn("io", "-f", "vpc", "-c", "write 0 4k", "a.vhd", ok=False)
    assert result.code == 1 and "share space" in result.err


@pytest.mark.parametrize("length", [0, 100, 511])
def test_short_files(folder, cairn, length):
    with open("a.vhd", "wb") as out:
        out.write(b"x" * length)
    assert cairn("info", "-f", "vpc", "a.vhd", ok=False).code == 1


def test_a_fixed_disk_that_reaches_into_its_footer(folder, cairn):
    cairn("create", "-q", "-f", "vpc", "-o", "subformat=fixed,force_size=on", "a.vhd", "1M")
    image = Vhd("a.vhd")
    image.put(MIB + 48, "Q", 2 * MIB)
    image.save()
    assert "past the footer" in cairn("info", "-f", "vpc", "a.vhd", ok=False).err
    assert cairn("create", "-f", "vpc", "-o", "subformat=fixed", "b.vhd", "0", ok=False).code == 1


def test_a_lost_tail_is_found_and_repaired(victim, cairn, qemu):
    victim.bytes = victim.bytes[:-512]
    victim.save()
    qemu("info", "-f", "vpc", "a.vhd")
    assert cairn("check", "a.vhd", ok=False).code == 2
    cairn("check", "-r", "all", "a.vhd")
    cairn("check", "a.vhd")
    assert open("a.vhd", "rb").read()[-512:] == open("a.vhd", "rb").read()[:512]


def make_child(parent, child, relative="parent.vhd"):
    """A differencing image: sector 1 of block 0 is its own, everything else the parent's."""
    above = Vhd(parent)
    footer, header = bytearray(above.bytes[:512]), bytearray(1024)
    struct.pack_into(">I", footer, 60, 4)
    footer[68:84] = bytes(range(16))
    struct.pack_into(">I", footer, 64, checksum(footer, 64))
    header[:8] = b"cxsparse"
    path = (".\\" + relative).encode("utf-16-le")
    struct.pack_into(">QQIII", header, 8, (1 << 64) - 1, 2048, 0x10000, 32, 2 * MIB)
    header[40:56] = above.bytes[68:84]
    name = relative.encode("utf-16-be")
    header[64 : 64 + len(name)] = name
    struct.pack_into(">IIIIQ", header, 576, 0x57327275, 512, len(path), 0, 1536)
    struct.pack_into(">I", header, 36, checksum(header, 36))
    table = struct.pack(">I", 5) + b"\xff" * 508
    bitmap = bytearray(512)
    bitmap[0] = 0x40
    block = bytearray(2 * MIB)
    block[512:1024] = b"\x77" * 512
    with open(child, "wb") as out:
        out.write(footer + header + path.ljust(512, b"\0") + table + bitmap + block + footer)


def test_differencing_images(victim, cairn):
    victim.save()
    import os

    os.rename("a.vhd", "parent.vhd")
    make_child("parent.vhd", "child.vhd")
    reads = [
        "-c",
        "read -P 1 0 512",
        "-c",
        "read -P 0x77 512 512",
        "-c",
        "read -P 1 1k 3k",
        "-c",
        "read -P 0 4k 2M",
    ]
    cairn("io", "-r", "-f", "vpc", *reads, "child.vhd")
    info = cairn("info", "--output=json", "child.vhd").json()
    assert info["format"] == "vpc"
    cairn("io", "-f", "vpc", "-c", "write -P 9 100 1000", "-c", "write -P 8 5M 64k", "child.vhd")
    cairn(
        "io",
        "-r",
        "-f",
        "vpc",
        "-c",
        "read -P 1 0 100",
        "-c",
        "read -P 9 100 1000",
        "-c",
        "read -P 0x77 1100 0",
        "-c",
        "read -P 1 1100 2996",
        "-c",
        "read -P 8 5M 64k",
        "-c",
        "read -P 0 4M 1M",
        "child.vhd",
    )
    cairn("check", "child.vhd")
    # Nothing beside the image is opened for a stranger's.
    assert cairn("convert", "--untrusted", "child.vhd", "out.raw", ok=False).code == 1
    # Another disk in the parent's place is noticed.
    cairn("create", "--overwrite", "-q", "-f", "vpc", "-o", "force_size=on", "parent.vhd", "64M")
    result = cairn("io", "-r", "-f", "vpc", "-c", "read 0 512", "child.vhd", ok=False)
    assert result.code == 1 and "another disk" in result.err


# --- differencing images that we make ---


def locators(image):
    """What the header's locators hold, by code."""
    found = {}
    for at in range(576 + 512, 576 + 512 + 8 * 24, 24):
        code, space, length, _, offset = struct.unpack_from(">4sIIIQ", image.bytes, at)
        if length:
            assert space >= length and offset % 512 == 0
            found[code] = image.bytes[offset : offset + length].decode("utf-16-le")
    return found


@pytest.mark.parametrize("options", ["force_size=on", "subformat=dynamic", "subformat=fixed"])
def test_children_are_made(disk, folder, cairn, options):
    (folder / "base").mkdir()
    cairn("convert", "-O", "vpc", "-o", options, disk, "base/parent.vhd")
    cairn("create", "-q", "-f", "vpc", "-b", "base/parent.vhd", "-F", "vpc", "child.vhd")
    cairn(
        "io",
        "-f",
        "vpc",
        "-c",
        "write -q -P 7 1000 2000",
        "-c",
        "write -q -P 8 2M 64k",
        "child.vhd",
    )
    cairn("create", "-q", "-b", str(folder / "child.vhd"), "-F", "vpc", "leaf.vhd")
    cairn("io", "-f", "vpc", "-c", "write -q -P 9 1500 100", "leaf.vhd")
    image, parent = Vhd("child.vhd"), Vhd("base/parent.vhd")
    end = len(parent.bytes) - 512
    assert (
        image.get(60) == 4 and image.bytes[512 + 40 : 512 + 56] == parent.bytes[end + 68 : end + 84]
    )
    assert image.bytes[512 + 64 : 512 + 86].decode("utf-16-be") == "parent.vhd\0"
    whole = str(folder / "base/parent.vhd").replace("/", "\\")
    assert locators(image) == {b"W2ru": ".\\base\\parent.vhd", b"W2ku": whole}
    assert locators(Vhd("leaf.vhd"))[b"W2ru"] == ".\\child.vhd"
    info = cairn("info", "--output=json", "leaf.vhd").json()
    assert info["backing-filename"] == "child.vhd" and info["backing-filename-format"] == "vpc"
    cairn("convert", "-O", "raw", "leaf.vhd", "ours.raw")
    files = [pyvhdi.file() for _ in range(3)]
    for file, name in zip(files, ("leaf.vhd", "child.vhd", "base/parent.vhd")):
        file.open(name)
    files[1].set_parent(files[2])
    files[0].set_parent(files[1])
    ours = open("ours.raw", "rb").read()
    size = min(files[0].get_media_size(), len(ours))
    assert files[0].read_buffer_at_offset(size, 0) == ours[:size]
    expected = bytearray(open(disk, "rb").read().ljust(len(ours), b"\0"))
    expected[1000:3000], expected[2 * MIB : 2 * MIB + 65536], expected[1500:1600] = (
        b"\7" * 2000,
        b"\x08" * 65536,
        b"\x09" * 100,
    )
    assert ours == expected
    for name in ("child.vhd", "leaf.vhd"):
        assert cairn("check", "-f", "vpc", "--output=json", name).json()["check-errors"] == 0
    # As a target that keeps what its parent has.
    cairn("convert", "-O", "vpc", "-B", "base/parent.vhd", "-F", "vpc", "ours.raw", "thin.vhd")
    cairn("compare", "-F", "raw", "thin.vhd", "ours.raw")


def test_children_that_cannot_be(disk, folder, cairn, ours, qemu):
    cairn("convert", "-O", "vpc", "-o", "force_size=on", disk, "parent.vhd")
    for words, message in (
        (["-o", "subformat=fixed"], "fixed image has no parent"),
        (["-F", "raw"], "must be one, too"),
        (["64M"], "size of its parent"),
    ):
        done = cairn(
            "create",
            "-q",
            "-f",
            "vpc",
            "-b",
            "parent.vhd",
            "-F",
            "vpc",
            *(words[:2] if words[0] != "64M" else []),
            "child.vhd",
            *(words if words[0] == "64M" else []),
            ok=False,
        )
        assert done.code == 1 and message in done.err and not (folder / "child.vhd").exists()
    # Under QEMU's name nothing is known of them.
    for words in (["-b", "parent.vhd", "-F", "vpc", "c.vhd"], ["-o", "help"]):
        mine, theirs = (tool("create", "-f", "vpc", *words, ok=False) for tool in (ours, qemu))
        assert (mine.code, mine.out, mine.err) == (theirs.code, theirs.out, theirs.err)


def test_known_as_vhd(disk, cairn, ours, qemu):
    cairn("convert", "-f", "raw", "-O", "vhd", disk, "v.img")
    cairn("create", "-f", "qcow2", "-b", "v.img", "-F", "vhd", "top.qcow2")
    assert qemu("info", "--output=json", "top.qcow2").json()["backing-filename-format"] == "vpc"
    assert "file format: vpc" in cairn("info", "-f", "vhd", "v.img").out
    assert "Unknown file format" in ours("create", "-f", "vhd", "x.img", "1M", ok=False).err


def test_check_is_unknown_to_qemu(disk, cairn, ours, qemu):
    cairn("convert", "-O", "vpc", disk, "a.vhd")
    for words in ([], ["-r", "all"], ["--output=json"]):
        mine, theirs = (
            tool("check", "-f", "vpc", *words, "a.vhd", ok=False) for tool in (ours, qemu)
        )
        assert (mine.code, mine.out, mine.err) == (
            theirs.code,
            theirs.out,
            theirs.err,
        ) and mine.code == 63


# --- Azure ---


@pytest.mark.parametrize("size", [MIB, 3 * MIB + 512, 40 * MIB])
def test_for_azure(folder, cairn, qemu, size):
    sparse_disk("disk.raw", size)
    assert (
        "Ready for Azure" in cairn("convert", "--for", "azure", "--verify", "disk.raw", "a.vhd").out
    )
    image = Vhd("a.vhd")
    whole = (size + MIB - 1) // MIB * MIB
    assert len(image.bytes) == whole + 512
    assert image.bytes[whole : whole + 8] == b"conectix" and image.get(whole + 60) == 2
    assert image.get(whole + 40, "Q") == image.get(whole + 48, "Q") == whole
    assert image.get(whole + 64) == checksum(image.bytes[whole:], 64)
    assert qemu("info", "-f", "vpc", "--output=json", "a.vhd").json()["virtual-size"] == whole
    qemu("compare", "-f", "raw", "-F", "vpc", "disk.raw", "a.vhd")
    qemu("convert", "-f", "raw", "-O", "qcow2", "disk.raw", "a.qcow2")
    assert cairn("convert", "-q", "--for", "azure", "a.qcow2", "-O", "vpc", "b.img").out == ""
    cairn("compare", "-f", "vpc", "b.img", "a.vhd")


@pytest.mark.parametrize(
    "words, message",
    [
        (["--for", "mars"], "Known are aws, azure"),
        (["-c", "--for", "azure"], "no compressed"),
        (["-n", "--for", "azure"], "new image"),
        (["-O", "qcow2", "--for", "azure"], "VHD images only"),
        (["-o", "subformat=dynamic", "--for", "azure"], "subformat=fixed"),
        (["-o", "force_size=off", "--for", "azure"], "force_size=on"),
    ],
    ids=str,
)
def test_not_for_azure(disk, folder, cairn, words, message):
    done = cairn("convert", *words, disk, "a.vhd", ok=False)
    assert done.code == 1 and message in done.err and not (folder / "a.vhd").exists()


def test_names_and_sizes_that_azure_does_not_take(disk, folder, cairn, qemu):
    assert "VHD images only" in cairn("convert", "--for", "azure", disk, "a.vhdx", ok=False).err
    qemu("create", "-q", "-f", "qcow2", "huge.qcow2", "3T")
    done = cairn("convert", "--for", "azure", "huge.qcow2", "a.vhd", ok=False)
    assert done.code == 1 and "too large" in done.err and not (folder / "a.vhd").exists()
