"""Bochs redologs: made by bximage, read by us and by QEMU; images that lie."""
# Packages: bximage
import random
import struct
from pathlib import Path

import pytest

from bochs_writer import redolog
from conftest import call, sparse_disk

pytestmark = pytest.mark.any_engine

FREE = 0xFFFFFFFF


@pytest.fixture
def patch():
    def change(name, at, fmt, *values):
        with open(name, "r+b") as image:
            image.seek(at)
            image.write(struct.pack("<" + fmt, *values) if fmt != "text" else values[0])

    return change


def bximage(*words):
    return call("bximage", "-q", *words)


@pytest.mark.parametrize("size", [10, 33, 129])
def test_made_by_bximage(folder, cairn, qemu, size):
    bximage("-func=create", f"-hd={size}M", "-imgmode=growing", "a.bochs")
    info = cairn("info", "--output=json", "a.bochs").json()
    assert info["format"] == "bochs"
    assert info["virtual-size"] == qemu("info", "--output=json", "a.bochs").json()["virtual-size"]
    assert cairn("map", "--output=json", "a.bochs").json()[0]["zero"]
    cairn("convert", "-O", "raw", "a.bochs", "a.raw")
    assert not any(Path("a.raw").read_bytes())


@pytest.mark.parametrize("seed", [1, 2])
def test_converted_by_bximage(folder, cairn, qemu, seed):
    sparse_disk("disk.raw", 3 << 20, seed=seed, pieces=30)
    bximage("-func=convert", "-imgmode=growing", "disk.raw", "a.bochs")
    cairn("compare", "-f", "raw", "-F", "bochs", "disk.raw", "a.bochs")
    cairn("convert", "-O", "raw", "a.bochs", "b.raw")
    assert Path("b.raw").read_bytes() == Path("disk.raw").read_bytes()
    qemu("compare", "-f", "raw", "-F", "raw", "b.raw", "disk.raw")
    assert cairn("check", "a.bochs").code == 0
    zero = sum(
        part["length"]
        for part in cairn("map", "--output=json", "a.bochs").json()
        if not part["data"]
    )
    assert zero > 1 << 20


@pytest.mark.parametrize("version", [0x10000, 0x20000])
def test_sectors(folder, cairn, qemu, version):
    source = random.Random(3)
    extents = {
        place: (
            number,
            {sector: source.randrange(1, 256) for sector in source.sample(range(32), 9)},
        )
        for number, place in enumerate(source.sample(range(64), 20))
    }
    redolog("a.bochs", version=version, extents=extents)
    expected = bytearray(1 << 20)
    for place, (_, sectors) in extents.items():
        for sector, value in sectors.items():
            at = place * 16384 + sector * 512
            expected[at : at + 512] = bytes([value]) * 512
    cairn("convert", "-O", "raw", "a.bochs", "ours.raw")
    qemu("convert", "-f", "bochs", "-O", "raw", "a.bochs", "theirs.raw")
    assert Path("ours.raw").read_bytes() == Path("theirs.raw").read_bytes() == bytes(expected)


def test_large_bitmaps(folder, cairn, qemu):
    """More than a sector of bits."""
    redolog(
        "a.bochs",
        size=8 << 20,
        catalog=2,
        extent=8 << 20,
        bitmap=2048,
        extents={0: (0, {0: 1, 4095: 2, 4096: 3, 16383: 4})},
    )
    cairn(
        "io",
        "-f",
        "bochs",
        "-r",
        "-c",
        "read -P 1 0 512",
        "-c",
        "read -P 0 512 512",
        "-c",
        "read -P 2 2096640 512",
        "-c",
        "read -P 3 2M 512",
        "-c",
        "read -P 4 8388096 512",
        "a.bochs",
    )
    qemu("convert", "-f", "bochs", "-O", "raw", "a.bochs", "a.raw")
    cairn("compare", "a.bochs", "a.raw")


@pytest.fixture
def layered(folder):
    """A base of bytes 7 and a redolog over it with some sectors of 9."""

    def make(subtype, name):
        Path("disk.img").write_bytes(b"\7" * (1 << 20))
        redolog(name, subtype=subtype, extents={0: (0, {1: 9}), 5: (1, {0: 9, 31: 9})})
        expected = bytearray(b"\7" * (1 << 20))
        for at in (512, 5 * 16384, 6 * 16384 - 512):
            expected[at : at + 512] = b"\x09" * 512
        return bytes(expected)

    return make


@pytest.mark.parametrize(
    "subtype, name", [(b"Undoable", "disk.img.redolog"), (b"Volatile", "disk.img.AbCdEf")]
)
def test_redologs_over_a_base(layered, cairn, subtype, name):
    expected = layered(subtype, name)
    cairn("convert", "-O", "raw", name, "out.raw")
    assert Path("out.raw").read_bytes() == expected
    assert cairn("info", "--output=json", name).json()["backing-filename"] == "disk.img"
    layers = cairn("map", "--output=json", name).json()
    assert {part["depth"] for part in layers} == {0, 1}
    refused = cairn("convert", "--untrusted", "-f", "bochs", "-O", "raw", name, "b.raw", ok=False)
    assert refused.code == 1 and "may not be opened here" in refused.err
    # What bximage merges is what we show.
    if subtype == b"Undoable":
        bximage("-func=commit", "disk.img", name)
        assert Path("disk.img").read_bytes() == expected


def test_a_redolog_with_another_name(layered, cairn):
    expected = layered(b"Undoable", "other")
    result = cairn("convert", "-O", "raw", "other", "out.raw", ok=False)
    assert result.code == 1 and "base of this redolog is not known" in result.err
    cairn(
        "convert",
        "-O",
        "raw",
        "--image-opts",
        "driver=bochs,file.filename=other,backing.driver=raw,backing.file.filename=disk.img",
        "out.raw",
    )
    assert Path("out.raw").read_bytes() == expected


LIES = [
    (0, "text", b"b", "Image not in Bochs format"),
    (32, "text", b"Redo\0", "Image not in Bochs format"),
    (48, "text", b"vvfat\0", "Image not in Bochs format"),
    (64, "I", 0x30000, "Image not in Bochs format"),
    (72, "I", 0x100001, "Catalog size is too large"),
    (72, "I", 0xFFFFFFFF, "Catalog size is too large"),
    (80, "I", 256, "Extent size must be at least 512"),
    (80, "I", 0, "Extent size must be at least 512"),
    (80, "I", 16383, "Extent size 16383 is not a power of two"),
    (80, "I", 0x1000000, "Extent size 16777216 is too large"),
    (80, "I", 0x80000000, "Extent size 2147483648 is too large"),
    (72, "I", 63, "Catalog size is too small for this disk size"),
    (88, "Q", 1 << 62, "Catalog size is too small for this disk size"),
]
STRICTER = [
    (68, "I", 0, "Header size 0 is less than 512"),
    (68, "I", 0xFFFFFF00, "past the end of the file"),
    (72, "I", 0x100000, "past the end of the file"),
    (76, "I", 0, "Bitmap size 0 does not fit"),
    (76, "I", 3, "Bitmap size 3 does not fit"),
    (76, "I", 0xFFFFFFFF, "Bitmap size 4294967295 does not fit"),
]


@pytest.mark.parametrize("at, fmt, value, message", LIES)
def test_lies_are_refused_as_qemu_does(folder, ours, qemu, patch, at, fmt, value, message):
    redolog("a.bochs")
    patch("a.bochs", at, fmt, value)
    mine = ours("info", "-f", "bochs", "a.bochs", ok=False)
    assert mine.code == 1 and message in mine.err
    assert mine.err == qemu("info", "-f", "bochs", "a.bochs", ok=False).err


@pytest.mark.parametrize("at, fmt, value, message", STRICTER)
def test_lies_that_qemu_believes(folder, cairn, patch, at, fmt, value, message):
    redolog("a.bochs")
    patch("a.bochs", at, fmt, value)
    result = cairn("info", "-f", "bochs", "a.bochs", ok=False)
    assert result.code == 1 and message in result.err and "a.bochs" in result.err


@pytest.mark.parametrize("length", [0, 100, 511, 512, 700])
def test_headers_and_catalogs_that_the_file_cuts(folder, cairn, length):
    redolog("a.bochs")
    with open("a.bochs", "r+b") as image:
        image.truncate(length)
    assert cairn("info", "-f", "bochs", "a.bochs", ok=False).code == 1


def test_extents_past_the_end(folder, cairn, patch):
    redolog("a.bochs", extents={0: (0, {1: 9})})
    for number in (1, 0xFFFFFFFE):
        patch("a.bochs", 512 + 4 * 9, "I", number)
        result = cairn("convert", "-O", "raw", "a.bochs", "out.raw", ok=False)
        assert result.code == 1 and "extent" in result.err
        result = cairn("check", "a.bochs", ok=False)
        assert result.code == 2 and "past its end" in result.err
    patch("a.bochs", 512 + 4 * 9, "I", FREE)
    with open("a.bochs", "r+b") as image:
        image.truncate(512 + 256 + 512 + 300)
    result = cairn("convert", "-O", "raw", "a.bochs", "out.raw", ok=False)
    assert result.code == 1 and "error" in result.err


def test_extents_that_are_shared(folder, cairn, patch):
    redolog("a.bochs", extents={0: (0, {1: 9})})
    patch("a.bochs", 512 + 4, "I", 0)
    result = cairn("check", "a.bochs", ok=False)
    assert result.code == 2 and "shares extent 0" in result.err


def test_what_qemu_says(folder, ours, qemu):
    redolog("a.bochs", extents={0: (0, {1: 9})})
    for words in (
        ["info", "a.bochs"],
        ["info", "--output=json", "a.bochs"],
        ["check", "a.bochs"],
        ["create", "-f", "bochs", "b.bochs", "1M"],
        ["convert", "-O", "bochs", "a.bochs", "b.bochs"],
        ["resize", "a.bochs", "2M"],
    ):
        mine, theirs = ours(*words, ok=False), qemu(*words, ok=False)
        assert (mine.code, mine.out, mine.err) == (theirs.code, theirs.out, theirs.err), words
    redolog("b.redolog", subtype=b"Undoable")
    for words in (["info", "b.redolog"], ["info", "-f", "bochs", "b.redolog"]):
        mine, theirs = ours(*words, ok=False), qemu(*words, ok=False)
        assert (mine.code, mine.out, mine.err) == (theirs.code, theirs.out, theirs.err), words
