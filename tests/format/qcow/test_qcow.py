"""Version 1 of qcow: ours and QEMU's byte for byte, another reader, images that lie."""
# Packages: libqcow-utils python3-libqcow
import re
import resource
import struct
import subprocess

import pyqcow
import pytest

from conftest import CAIRN, call

pytestmark = pytest.mark.any_engine

KIB, MIB = 1 << 10, 1 << 20
COMPRESSED = 1 << 63


@pytest.fixture
def patch():
    def change(name, at, fmt, *values):
        with open(name, "r+b") as image:
            image.seek(at)
            image.write(struct.pack(">" + fmt, *values))

    return change


def same(a, b):
    return open(a, "rb").read() == open(b, "rb").read()


@pytest.mark.parametrize("size", ["1", "512", "1000", "2M", "64M", "128M", "1G", "64G"])
def test_created_as_qemu_does(folder, ours, qemu, size):
    mine = ours("create", "-f", "qcow", "a.qcow", size)
    theirs = qemu("create", "-f", "qcow", "b.qcow", size)
    assert mine.out.replace("a.qcow", "b.qcow") == theirs.out and same("a.qcow", "b.qcow")


def test_created_above_a_backing_file(folder, ours, qemu):
    qemu("create", "-q", "-f", "raw", "base", "3M")
    mine = ours("create", "-f", "qcow", "-b", "base", "-F", "raw", "a.qcow", "64M")
    theirs = qemu("create", "-f", "qcow", "-b", "base", "-F", "raw", "b.qcow", "64M")
    assert mine.out.replace("a.qcow", "b.qcow") == theirs.out and same("a.qcow", "b.qcow")
    assert ours("info", "a.qcow").out.replace("a.qcow", "b.qcow") == qemu("info", "b.qcow").out


def test_options_of_creation(folder, ours, qemu):
    assert (
        ours("create", "-f", "qcow", "-o", "help").out
        == qemu("create", "-f", "qcow", "-o", "help").out
    )
    for words in (
        ["a", "0"],
        ["-o", "cluster_size=4k", "a", "1M"],
        ["-o", "encryption=on", "a", "1M"],
        ["-o", "encryption=on,encrypt.format=aes", "a", "1M"],
        ["-o", "encrypt.format=luks", "a", "1M"],
        ["-o", "encrypt.format=aes,encrypt.key-secret=x", "a", "1M"],
    ):
        mine = ours("create", "-f", "qcow", *words, ok=False)
        theirs = qemu("create", "-f", "qcow", *words, ok=False)
        assert (mine.code, mine.err) == (theirs.code, theirs.err), words


def test_sizes_that_could_not_be_opened_are_refused(folder, cairn):
    assert "too large" in cairn("create", "-f", "qcow", "a", "1E", ok=False).err
    assert (
        "too long"
        in cairn(
            "create", "-u", "-f", "qcow", "-b", "x" * 1100, "-F", "raw", "a", "1M", ok=False
        ).err
    )


def test_the_same_writes_give_the_same_file(folder, ours, qemu):
    commands = [
        "write -P 1 5k 1k",
        "write -P 2 2M 4k",
        "write -P 3 0 512",
        "write -P 4 8k 64k",
        "discard 0 4k",
    ]
    words = [word for command in commands for word in ("-c", command)]
    qemu("create", "-q", "-f", "qcow", "a.qcow", "8M")
    qemu("create", "-q", "-f", "qcow", "b.qcow", "8M")
    call(CAIRN, "io", "-f", "qcow", *words, "a.qcow")
    call("qemu-io", "-f", "qcow", *words, "b.qcow")
    qemu("compare", "a.qcow", "b.qcow")
    head, other = open("a.qcow", "rb").read(24 * KIB), open("b.qcow", "rb").read(24 * KIB)
    assert head == other


def test_both_ways(disk, cairn, ours, qemu):
    for words in ([], ["-c"]):
        cairn("convert", "--overwrite", *words, "-O", "qcow", disk, "ours.qcow")
        qemu("compare", "-F", "qcow", disk, "ours.qcow")
        cairn("check", "ours.qcow")
    qemu("convert", "-O", "qcow", disk, "theirs.qcow")
    cairn("compare", "-F", "qcow", disk, "theirs.qcow")
    cairn("check", "theirs.qcow")


def test_clusters_that_qemu_compressed(folder, ours, cairn, qemu, qemu_io):
    """By qemu-io: `qemu-img convert -c` to this format ends with code 1 and no word."""
    qemu("create", "-q", "-f", "qcow", "a.qcow", "1M")
    qemu_io("a.qcow", *(f"write -q -c -P {i} {i * 8}k 4k" for i in range(1, 100)), fmt="qcow")
    cairn("convert", "-O", "raw", "a.qcow", "a.raw")
    qemu("compare", "a.qcow", "a.raw")
    cairn("check", "a.qcow")
    for words in ([], ["--output=json"]):
        assert (
            ours("map", *words, "a.qcow", ok=False).out
            == qemu("map", *words, "a.qcow", ok=False).out
        )


@pytest.mark.parametrize("compressed", [False, True])
def test_another_reader(disk, cairn, compressed):
    cairn("convert", *(["-c"] if compressed else []), "-O", "qcow", disk, "ours.qcow")
    other = pyqcow.file()
    other.open("ours.qcow")
    data = open(disk, "rb").read()
    assert other.get_media_size() == len(data)
    assert other.read_buffer(len(data)) == data
    other.close()


def test_aes(disk, cairn, qemu):
    secret = ["--object", "secret,id=s0,data=0123456789abcdef"]
    options = ["-O", "qcow", "-o", "encrypt.format=aes,encrypt.key-secret=s0"]
    cairn("convert", *secret, *options, disk, "ours.qcow")
    qemu("convert", *secret, *options, disk, "theirs.qcow")
    for name, tool in (("ours.qcow", qemu), ("theirs.qcow", cairn)):
        image = f"driver=qcow,encrypt.key-secret=s0,file.filename={name}"
        tool("convert", *secret, "--image-opts", "-O", "raw", image, f"{name}.raw")
        qemu("compare", f"{name}.raw", disk)
    assert cairn("info", "theirs.qcow", "--output=json").json()["encrypted"] is True
    assert "key-secret" in cairn("map", "theirs.qcow", ok=False).err
    other = pyqcow.file()
    other.set_password("0123456789abcdef")
    other.open("ours.qcow")
    data = open(disk, "rb").read()
    assert other.read_buffer(len(data)) == data
    other.close()


def test_untouched_sectors_of_an_encrypted_cluster_are_zero(folder, cairn, qemu):
    secret = ["--object", "secret,id=s0,data=x"]
    image = "driver=qcow,encrypt.key-secret=s0,file.filename=a.qcow"
    cairn(
        "create",
        *secret,
        "-q",
        "-f",
        "qcow",
        "-o",
        "encrypt.format=aes,encrypt.key-secret=s0",
        "a.qcow",
        "1M",
    )
    cairn("io", *secret, "--image-opts", "-c", "write -P 7 8704 512", image)
    call(
        "qemu-io",
        *secret,
        "--image-opts",
        "-c",
        "read -P 0 8k 512",
        "-c",
        "read -P 7 8704 512",
        "-c",
        "read -P 0 9k 3k",
        image,
    )
    assert (
        cairn(
            "convert",
            *secret,
            "-c",
            "-O",
            "qcow",
            "-o",
            "encrypt.format=aes,encrypt.key-secret=s0",
            "a.qcow",
            "b",
            ok=False,
        ).code
        == 1
    )


def test_a_short_write_keeps_what_is_below(folder, cairn, qemu, qemu_io):
    """Clusters of 4 KiB over a base that is attached when the image is opened: QEMU makes the rest zero."""
    qemu("create", "-q", "-f", "raw", "base", "1M")
    qemu_io("base", "write -P 9 0 1M", fmt="raw")
    cairn("create", "-q", "-f", "qcow", "top.qcow", "1M")
    image = "driver=qcow,file.filename=top.qcow,backing.driver=raw,backing.file.filename=base"
    cairn(
        "io",
        "--image-opts",
        "-c",
        "write -P 1 5k 1k",
        "-c",
        "read -P 9 4k 1k",
        "-c",
        "read -P 9 6k 2k",
        image,
    )


def test_compressed_over_what_is_there(folder, cairn, qemu, qemu_io):
    """A cluster that is stored gets a new place: QEMU writes the stream over the data."""
    qemu("create", "-q", "-f", "qcow", "a.qcow", "1M")
    qemu_io("a.qcow", "write -P 1 0 64k", fmt="qcow")
    cairn(
        "io",
        "-f",
        "qcow",
        "-c",
        "write -c -P 2 4k 4k",
        "-c",
        "write -c -P 3 4k 4k",
        "-c",
        "read -P 3 4k 4k",
        "a.qcow",
    )
    qemu_io("a.qcow", "read -P 1 0 4k", "read -P 3 4k 4k", "read -P 1 8k 56k", fmt="qcow")
    cairn("check", "a.qcow")


def test_commit_empties_the_overlay(folder, ours, qemu, qemu_io):
    for name in ("a", "b"):
        qemu("create", "-q", "-f", "raw", f"{name}.base", "1M")
        qemu("create", "-q", "-f", "qcow", "-b", f"{name}.base", "-F", "raw", f"{name}.qcow")
        qemu_io(f"{name}.qcow", "write -P 5 64k 64k", fmt="qcow")
    assert (
        ours("commit", "-f", "qcow", "a.qcow").out.replace("a.", "b.")
        == qemu("commit", "-f", "qcow", "b.qcow").out
    )
    assert same("a.base", "b.base")
    assert len(open("a.qcow", "rb").read()) == len(open("b.qcow", "rb").read())


@pytest.mark.parametrize(
    "words",
    [
        ["resize", "FILE", "2M"],
        ["check", "FILE"],
        ["snapshot", "-c", "x", "FILE"],
        ["amend", "-o", "size=2M", "FILE"],
        ["rebase", "-u", "-b", "x", "-F", "raw", "FILE"],
        ["measure", "-O", "qcow", "--size", "1M"],
        ["bitmap", "--add", "FILE", "b"],
    ],
    ids=lambda words: words[0],
)
def test_what_the_format_has_not(folder, ours, qemu, words):
    qemu("create", "-q", "-f", "qcow", "FILE", "1M")
    mine, theirs = ours(*words, ok=False), qemu(*words, ok=False)
    assert (mine.code, re.sub("#block[0-9]+", "#block", mine.err)) == (
        theirs.code,
        re.sub("#block[0-9]+", "#block", theirs.err),
    )


# Rows of malformed headers: name, place, layout, value, what is said. QEMU says the same where TOO.
HEADERS = [
    ("magic", 0, "I", 0x514649FA, "Image not in qcow format", True),
    ("version_0", 4, "I", 0, "qcow (v1) does not support qcow version 0", True),
    ("version_2", 4, "I", 2, "qcow (v1) does not support qcow version 2", True),
    ("version_3", 4, "I", 3, "Try the 'qcow2' driver instead.", True),
    ("version_4", 4, "I", 4, "qcow (v1) does not support qcow version 4", True),
    ("size_0", 24, "Q", 0, "Image size is too small (must be at least 2 bytes)", True),
    ("size_1", 24, "Q", 1, "Image size is too small (must be at least 2 bytes)", True),
    *[
        (f"cluster_bits_{bits}", 32, "B", bits, "Cluster size must be between 512 and 64k", True)
        for bits in (0, 8, 17, 31, 255)
    ],
    *[
        (f"l2_bits_{bits}", 33, "B", bits, "L2 table size must be between 512 and 64k", True)
        for bits in (5, 14, 27, 255)
    ],
    *[
        (f"size_{size:x}", 24, "Q", size, "Image too large", True)
        for size in (0xEEEEEEEEEEEEEEEE, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFF000)
    ],
    ("table_just_too_long", 24, "Q", 268435400 << 21, "Input/output error", True),
    ("crypt_2", 36, "I", 2, "invalid encryption method in qcow header", True),
    ("l1_far", 40, "Q", 1 << 63, "Input/output error", True),
    ("l1_overflow", 40, "Q", (1 << 63) - 8, "Input/output error", True),
    ("l1_over_header", 40, "Q", 0, "overlaps the header", False),
    ("l1_over_header_47", 40, "Q", 47, "overlaps the header", False),
]


@pytest.mark.parametrize("row", HEADERS, ids=lambda row: row[0])
def test_malformed_header(folder, ours, qemu, patch, row):
    _, place, layout, value, says, too = row
    qemu("create", "-q", "-f", "qcow", "a.qcow", "8M")
    patch("a.qcow", place, layout, value)
    before = open("a.qcow", "rb").read()
    mine = ours("info", "-f", "qcow", "a.qcow", ok=False)
    assert mine.code == 1 and says in mine.err and open("a.qcow", "rb").read() == before
    if too:
        assert mine.err == qemu("info", "-f", "qcow", "a.qcow", ok=False).err


@pytest.mark.parametrize("length", [1024, 0x7FFFFFFF, 0xFFFFFFFF])
def test_malformed_backing_name_length(folder, ours, qemu, patch, length):
    qemu("create", "-q", "-f", "qcow", "a.qcow", "8M")
    patch("a.qcow", 8, "QI", 48, length)
    mine, theirs = ours("info", "a.qcow", ok=False), qemu("info", "a.qcow", ok=False)
    assert mine.code == 1 and "Backing file name too long" in mine.err and mine.err == theirs.err


def test_malformed_backing_name_past_the_end(folder, ours, qemu, patch):
    qemu("create", "-q", "-f", "qcow", "a.qcow", "8M")
    patch("a.qcow", 8, "QI", 1 << 40, 10)
    assert ours("info", "a.qcow").out == qemu("info", "a.qcow").out


def test_malformed_size_below_a_sector(folder, ours, qemu, patch):
    qemu("create", "-q", "-f", "qcow", "a.qcow", "8M")
    patch("a.qcow", 24, "Q", 511)
    assert ours("info", "a.qcow").out == qemu("info", "a.qcow").out
    assert "virtual size: 0 B" in ours("info", "a.qcow").out


def test_malformed_l1_past_the_end(folder, cairn, ours, patch):
    cairn("create", "-q", "-f", "qcow", "a.qcow", "8M")
    patch("a.qcow", 40, "Q", 1 << 40)
    for words, why in (
        (["-r", "-c", "read -P 0 0 8M"], "a table at offset"),
        (["-c", "write 0 4k"], "can only be read"),
    ):
        refused = cairn("io", "-f", "qcow", *words, "a.qcow", ok=False)
        assert refused.code == 1 and why in refused.err
    assert (
        "past the end of the file"
        in ours("convert", "-f", "qcow", "-O", "raw", "a.qcow", "a.raw").err
    )
    assert len(open("a.qcow", "rb").read()) == 560


def test_malformed_l1_of_two_gib_takes_no_memory(folder, cairn, patch):
    cairn("create", "-q", "-f", "qcow", "a.qcow", "8M")
    patch("a.qcow", 24, "Q", 268435000 << 21)
    done = subprocess.run(
        [CAIRN.parent / "compat/qemu-io", "-r", "-f", "qcow", "-c", "read -P 0 1T 64k", "a.qcow"],
        capture_output=True,
        preexec_fn=None
        if "asan" in str(CAIRN)
        else lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)),
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def image(folder, qemu, qemu_io):
    """A plain cluster at 4 KiB, a compressed one at 64 KiB; its L2 table lies at 0x1000."""
    qemu("create", "-q", "-f", "qcow", "a.qcow", "8M")
    qemu_io("a.qcow", "write -P 1 4k 4k", "write -c -P 2 64k 4k", fmt="qcow")
    return "a.qcow"


@pytest.mark.parametrize("entry", [1 << 63, (1 << 63) - 512, 0x1001, 0x30], ids=hex)
def test_malformed_l1_entry(image, cairn, patch, entry):
    patch(image, 48, "Q", entry)
    failed = cairn("io", "-r", "-f", "qcow", "-c", "read 4k 4k", image, ok=False)
    assert failed.code == 1 and "read failed: Input/output error" in failed.out + failed.err
    assert "where no table can be" in cairn("check", image, ok=False).err


def test_malformed_l1_entry_past_the_end(image, cairn, ours, patch):
    patch(image, 48, "Q", 1 << 40)
    refused = cairn("io", "-r", "-f", "qcow", "-c", "read -P 0 4k 4k", image, ok=False)
    assert refused.code == 1
    assert "past the end of the file" in cairn("hash", "-f", "qcow", image, ok=False).err
    assert (
        "past the end of the file" in ours("convert", "-f", "qcow", "-O", "raw", image, "a.raw").err
    )
    refused = cairn("io", "-f", "qcow", "-c", "write 4k 4k", image, ok=False)
    assert refused.code == 1 and "far past the end" in refused.err


@pytest.mark.parametrize("entry", [0x2001, 0x7FFFFFFFFFFFFE00], ids=hex)
def test_malformed_l2_entry(image, cairn, patch, entry):
    patch(image, 0x1000 + 8, "Q", entry)
    for command in ("read 4k 4k", "write 4k 4k"):
        failed = cairn("io", "-f", "qcow", "-c", command, image, ok=False)
        assert failed.code == 1 and "Input/output error" in failed.out + failed.err
    assert "cannot be at" in cairn("check", image, ok=False).err


def test_malformed_l2_entry_over_the_header(image, cairn, patch):
    patch(image, 0x1000 + 8, "Q", 0x200)
    patch(image, 40, "Q", 0x200)
    patch(image, 0x200, "Q", 0x1000)
    before = open(image, "rb").read()
    failed = cairn("io", "-f", "qcow", "-c", "write 4k 4k", image, ok=False)
    assert failed.code == 1 and open(image, "rb").read() == before


@pytest.mark.parametrize(
    "entry",
    [
        COMPRESSED | 0x3000,
        COMPRESSED | 64 << 51 | 0x1000,
        COMPRESSED | 3 << 51 | 0x3000,
        COMPRESSED | 64 << 51 | 1 << 40,
    ],
    ids=["empty", "garbage", "short", "past_the_end"],
)
def test_malformed_compressed_cluster(image, cairn, patch, entry):
    patch(image, 0x1000 + 16 * 8, "Q", entry)
    for command in ("read 64k 4k", "write 64k 512"):
        failed = cairn("io", "-f", "qcow", "-c", command, image, ok=False)
        assert failed.code == 1 and "Input/output error" in failed.out + failed.err


def test_space_with_two_uses_is_found(image, cairn, patch):
    patch(image, 0x1000 + 5 * 8, "Q", 0x2000)
    found = cairn("check", image, ok=False)
    assert found.code == 2 and "has a second use" in found.err
