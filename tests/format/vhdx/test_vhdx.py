"""VHDX images: ours read by QEMU and libvhdi, QEMU's read by us, logs, parents, images that lie."""
import os
import shutil
import struct
import uuid

import pytest
import pyvhdi

pytestmark = pytest.mark.any_engine
MIB = 1 << 20
BAT = uuid.UUID("2DC27766-F623-4200-9D64-115E9BFD4A08").bytes_le
METADATA = uuid.UUID("8B7CA206-4790-4B9A-B8FE-575F050F886E").bytes_le
TABLE = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
    TABLE.append(n)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


class Vhdx:
    """An image as its maker left it; fields can be set, checksums follow."""

    HEADERS = (65536, 131072)
    REGIONS = (196608, 262144)

    def __init__(self, name):
        self.name = name
        self.bytes = bytearray(open(name, "rb").read())
        self.current = max(self.HEADERS, key=lambda at: self.get(at + 8, "Q"))
        self.log_length, self.log = self.get(self.current + 68), self.get(self.current + 72, "Q")
        self.bat = self.region(BAT)
        self.metadata = self.region(METADATA)

    def region(self, guid):
        return self.get(self.bytes.index(guid, self.REGIONS[0]) + 16, "Q")

    def item(self, guid):
        entry = self.bytes.index(uuid.UUID(guid).bytes_le, self.metadata)
        return self.metadata + self.get(entry + 16)

    def entry(self, guid):
        return self.bytes.index(uuid.UUID(guid).bytes_le, self.metadata)

    def put(self, at, fmt, *values):
        struct.pack_into("<" + fmt, self.bytes, at, *values)

    def get(self, at, fmt="I"):
        return struct.unpack_from("<" + fmt, self.bytes, at)[0]

    def seal(self, at, length):
        self.put(at + 4, "I", 0)
        self.put(at + 4, "I", crc32c(self.bytes[at : at + length]))

    def headers(self, offset, fmt, *values):
        for at in self.HEADERS:
            self.put(at + offset, fmt, *values)
            self.seal(at, 4096)

    def regions(self, change):
        for at in self.REGIONS:
            change(at)
            self.seal(at, 65536)

    def log_entry(
        self, position, sequence, changes, tail=None, guid=b"G" * 16, flushed=None, last=None, pad=0
    ):
        """CHANGES: (offset, 4096 bytes) or (offset, length of zeroes)."""
        tables = (len(changes) + 2 + 127) // 128
        data = [(at, what) for at, what in changes if not isinstance(what, int)]
        entry = bytearray((tables + len(data) + pad) * 4096)
        struct.pack_into(
            "<4sIIIQII16sQQ",
            entry,
            0,
            b"loge",
            0,
            len(entry),
            position if tail is None else tail,
            sequence,
            len(changes),
            0,
            guid,
            len(self.bytes) if flushed is None else flushed,
            len(self.bytes) if last is None else last,
        )
        for i, (at, what) in enumerate(changes):
            if isinstance(what, int):
                struct.pack_into("<4sIQQQ", entry, 64 + 32 * i, b"zero", 0, what, at, sequence)
            else:
                struct.pack_into(
                    "<4s4s8sQQ", entry, 64 + 32 * i, b"desc", what[4092:], what[:8], at, sequence
                )
        for i, (at, what) in enumerate(data):
            struct.pack_into(
                "<4sI4084sI",
                entry,
                (tables + i) * 4096,
                b"data",
                sequence >> 32,
                what[8:4092],
                sequence & 0xFFFFFFFF,
            )
        struct.pack_into("<I", entry, 4, crc32c(entry))
        for i in range(0, len(entry), 4096):
            at = self.log + (position + i) % self.log_length
            self.bytes[at : at + 4096] = entry[i : i + 4096]
        return position + len(entry)

    def pending(self, guid=b"G" * 16):
        self.headers(48, "16s", guid)

    def save(self, name=None):
        with open(name or self.name, "wb") as out:
            out.write(self.bytes)


@pytest.fixture
def image(folder, qemu, qemu_io):
    """Block 0 holds ones, block 2 twos, the rest nothing; made by QEMU, blocks of 1 MiB."""
    qemu("create", "-q", "-f", "vhdx", "-o", "block_size=1M", "a.vhdx", "8M")
    qemu_io("a.vhdx", "write -P 1 0 1M", "write -P 2 2M 1M", fmt="vhdx")
    return Vhdx("a.vhdx")


def reads(cairn, name, *patterns, ok=True):
    return cairn(
        "io",
        "-r",
        "-f",
        "vhdx",
        *[word for p in patterns for word in ("-c", "read -q -P " + p)],
        name,
        ok=ok,
    )


@pytest.mark.parametrize(
    "options",
    [
        "subformat=dynamic",
        "subformat=fixed",
        "block_size=1M,block_state_zero=off",
        "block_size=256M,log_size=3M",
    ],
)
def test_both_ways(disk, cairn, qemu, options):
    cairn("convert", "-O", "vhdx", "-o", options, disk, "ours.vhdx")
    qemu("check", "ours.vhdx")
    qemu("compare", disk, "ours.vhdx")
    other = pyvhdi.file()
    other.open("ours.vhdx")
    content = open(disk, "rb").read()
    assert (
        other.get_media_size() == len(content)
        and other.read_buffer_at_offset(len(content), 0) == content
    )
    qemu("convert", "-O", "vhdx", "-o", options, disk, "theirs.vhdx")
    cairn("compare", disk, "theirs.vhdx")
    assert cairn("check", "--output=json", "theirs.vhdx").json()["check-errors"] == 0


@pytest.mark.parametrize(
    "words",
    [
        ["1G"],
        ["1073742336"],
        ["101G"],
        ["-o", "log_size=3M,block_size=3M", "1G"],
        ["-o", "block_size=1M,subformat=fixed", "2M"],
        ["-o", "block_size=4M,block_state_zero=off", "2M"],
        ["-o", "log_size=0", "1M"],
        ["-o", "log_size=4G", "1M"],
        ["-o", "subformat=x", "1M"],
        ["65T"],
    ],
)
def test_created_as_qemu_does(folder, ours, qemu, words):
    mine = ours("create", "-f", "vhdx", *words[:-1], "a.vhdx", words[-1], ok=False)
    theirs = qemu("create", "-f", "vhdx", *words[:-1], "b.vhdx", words[-1], ok=False)
    assert mine.out.replace("a.vhdx", "b.vhdx") == theirs.out and mine.code == theirs.code
    assert mine.err.replace("a.vhdx", "b.vhdx").strip() == theirs.err.strip()
    if mine.code == 0:
        a, b = Vhdx("a.vhdx"), Vhdx("b.vhdx")
        assert (a.bat, a.metadata, a.log, len(a.bytes)) == (b.bat, b.metadata, b.log, len(b.bytes))
        parameters = "CAA16737-FA36-4D43-B3B6-33F0AA44E76B"
        assert a.get(a.item(parameters), "Q") == b.get(b.item(parameters), "Q")


@pytest.mark.parametrize("block", [1 << i for i in range(9)])
def test_every_block_and_sector_size(folder, cairn, qemu, block):
    """Across the border between two chunks, where the entry of a bitmap lies between those of blocks."""
    for sector in (512, 4096):
        chunk = (1 << 23) * sector
        cairn(
            "create",
            "--overwrite",
            "-q",
            "-f",
            "vhdx",
            "-o",
            f"block_size={block}M,logical_sector_size={sector}",
            "a.vhdx",
            chunk + 5 * MIB * block,
        )
        cairn(
            "io",
            "-f",
            "vhdx",
            "-c",
            f"write -q -P 5 {chunk - MIB} 2M",
            "-c",
            "write -q -P 6 4k 4k",
            "a.vhdx",
        )
        reads(cairn, "a.vhdx", f"5 {chunk - MIB} 2M", "6 4k 4k", f"0 {chunk + MIB} 1M")
        other = pyvhdi.file()
        other.open("a.vhdx")
        assert other.read_buffer_at_offset(2 * MIB, chunk - MIB) == b"\5" * (2 * MIB)
        assert cairn("check", "--output=json", "a.vhdx").json()["check-errors"] == 0
        if sector == 512:
            qemu("check", "a.vhdx")


def test_zeroes_and_discard_give_space_back(image, cairn, qemu):
    cairn(
        "io",
        "-f",
        "vhdx",
        "-d",
        "unmap",
        "-c",
        "write -q -z -u 0 1M",
        "-c",
        "discard -q 2M 1M",
        "a.vhdx",
    )
    after = Vhdx("a.vhdx")
    assert [after.get(after.bat + 8 * i, "Q") for i in (0, 2)] == [2, 2]
    reads(cairn, "a.vhdx", "0 0 8M")
    qemu("check", "a.vhdx")
    cairn("io", "-f", "vhdx", "-c", "write -q -P 7 5M 4k", "a.vhdx")
    assert os.path.getsize("a.vhdx") == len(image.bytes)
    reads(cairn, "a.vhdx", "7 5M 4k", "0 5124k 1020k")


def test_headers_change_once_in_a_session(image, cairn):
    cairn("io", "-r", "-f", "vhdx", "-c", "read -q 0 1M", "a.vhdx")
    assert open("a.vhdx", "rb").read() == image.bytes
    cairn("io", "-f", "vhdx", "-c", "write -q 0 512", "-c", "write -q 512 512", "a.vhdx")
    after = Vhdx("a.vhdx")
    assert after.get(after.current + 8, "Q") == image.get(image.current + 8, "Q") + 2
    for at in (16, 32):
        values = {bytes(after.bytes[h + at : h + at + 16]) for h in after.HEADERS}
        assert len(values) == 1 and values != {
            bytes(image.bytes[image.current + at : image.current + at + 16])
        }
    assert after.get(after.current + 48, "16s") == bytes(16)


@pytest.mark.parametrize("options", ["block_size=1M", "block_size=1M,subformat=fixed"])
def test_resize(disk, cairn, qemu, options):
    cairn("convert", "-O", "vhdx", "-o", options, disk, "a.vhdx")
    sizes = ["7M", "1M"] if "fixed" in options else ["7M", "200G", "1M"]
    for size in sizes:
        qemu("resize", "-f", "raw", "--shrink", disk, size)
        cairn("resize", "-f", "vhdx", "--shrink", "a.vhdx", size)
        if size != "200G":
            qemu("compare", "-f", "raw", "-F", "vhdx", disk, "a.vhdx")
        qemu("check", "a.vhdx")
        assert cairn("check", "-f", "vhdx", "--output=json", "a.vhdx").json()["check-errors"] == 0


# --- the log ---


def swapped(image):
    """The first sector of the block table, with blocks 0 and 2 of the disk exchanged."""
    page = bytearray(image.bytes[image.bat : image.bat + 4096])
    page[0:8], page[16:24] = page[16:24], page[0:8]
    return bytes(page)


def shape_one(image):
    image.log_entry(0, 1, [(image.bat, swapped(image))])


def shape_sequence(image):
    at = image.log_entry(8192, 7, [(image.bat, bytes(4096))])
    image.log_entry(at, 8, [(image.bat, swapped(image))], tail=8192)


def shape_tail_in_the_middle(image):
    at = image.log_entry(0, 1, [(image.metadata, bytes(4096))])
    at = image.log_entry(at, 2, [(image.bat, swapped(image))])
    image.log_entry(at, 3, [], tail=at - 8192)


def shape_wrapped(image):
    image.log_entry(image.log_length - 4096, 5, [(image.bat, swapped(image))])


def shape_torn(image):
    shape_one(image)
    at = image.log_entry(8192, 2, [(image.bat, bytes(4096))], tail=0)
    image.bytes[image.log + at - 100] ^= 1


def shape_torn_data(image):
    shape_one(image)
    at = image.log_entry(8192, 2, [(image.bat, bytes(4096))], tail=0)
    image.bytes[image.log + at - 4096 : image.log + at] = bytes(4096)


def shape_stale(image):
    image.log_entry(0, 90, [(image.bat, bytes(4096))], guid=b"H" * 16)
    image.log_entry(65536, 3, [(image.bat, swapped(image))])


def shape_gap(image):
    shape_sequence(image)
    image.log_entry(8192 * 3, 4, [(image.bat, bytes(4096))])


def shape_many(image):
    spare = image.metadata + 70 * 4096
    image.log_entry(
        0,
        1,
        [(spare + (i % 8) * 4096, bytes(4096)) for i in range(130)] + [(image.bat, swapped(image))],
    )


def shape_padded(image):
    image.log_entry(0, 1, [(image.bat, swapped(image))], pad=3)


def shape_zeroes(image):
    image.log_entry(
        0, 1, [(image.bat, 4096), (image.metadata + 70 * 4096, 0), (image.bat, swapped(image))]
    )


SHAPES = {name[6:]: shape for name, shape in globals().items() if name.startswith("shape_")}


@pytest.mark.parametrize("shape", SHAPES)
def test_pending_logs_are_replayed(image, cairn, qemu, shape):
    SHAPES[shape](image)
    image.pending()
    image.save()
    reads(cairn, "a.vhdx", "2 0 1M", "1 2M 1M", "0 3M 5M")
    assert cairn("info", "--output=json", "a.vhdx").json()["format-specific"]["data"]["log-pending"]
    assert open("a.vhdx", "rb").read() == image.bytes
    cairn("io", "-f", "vhdx", "-c", "write -q -P 9 7M 64k", "a.vhdx")
    qemu("check", "a.vhdx")
    reads(cairn, "a.vhdx", "2 0 1M", "1 2M 1M", "9 7M 64k")
    image.save()
    fixed = cairn("check", "-r", "all", "--output=json", "a.vhdx").json()
    assert fixed["check-errors"] == 0 and fixed["corruptions-fixed"] == 1
    after = Vhdx("a.vhdx")
    assert after.get(after.current + 32, "16s") == image.get(
        image.current + 32, "16s"
    ), "the content is the same"


def test_what_is_given_up_costs_nothing(folder, cairn, qemu):
    """Discarded blocks are holes of the file; what a crash left is one after the repair."""
    cairn("create", "-q", "-f", "vhdx", "-o", "block_size=1M", "a.vhdx", "20M")
    cairn("io", "-f", "vhdx", "-c", "write -q -P 3 0 16M", "-c", "discard -q 4M 4M", "a.vhdx")
    assert os.stat("a.vhdx").st_blocks * 512 < 14 * MIB
    cairn("check", "a.vhdx")
    reads(cairn, "a.vhdx", "3 0 4M", "0 4M 4M", "3 8M 8M")
    qemu("check", "a.vhdx")
    # Written out as zeroes.
    data = open("a.vhdx", "rb").read()
    with open("a.vhdx", "r+b") as file:
        file.write(data)
    found = cairn("check", "a.vhdx", ok=False)
    assert found.code == 3 and "4 leaked clusters" in found.out
    cairn("check", "-r", "leaks", "a.vhdx")
    cairn("check", "a.vhdx")
    reads(cairn, "a.vhdx", "3 0 4M", "0 4M 4M", "3 8M 8M")


def test_qemu_replays_ours(folder, cairn, qemu):
    """A program that dies after a flush."""
    cairn("create", "-q", "-f", "vhdx", "-o", "block_size=1M", "a.vhdx", "400M")
    cairn(
        "io",
        "-f",
        "vhdx",
        *[
            "-c",
            "write -q -P 3 1M 64k",
            "-c",
            "flush",
            "-c",
            "write -q -P 4 350M 2M",
            "-c",
            "flush",
            "-c",
            "abort",
        ],
        "a.vhdx",
        ok=False,
    )
    assert Vhdx("a.vhdx").get(Vhdx("a.vhdx").current + 48, "16s") != bytes(16)
    shutil.copy("a.vhdx", "b.vhdx")
    reads(cairn, "a.vhdx", "3 1M 64k", "4 350M 2M", "0 0 1M")
    qemu("check", "-r", "all", "b.vhdx")
    reads(cairn, "b.vhdx", "3 1M 64k", "4 350M 2M", "0 0 1M")


@pytest.mark.parametrize(
    "target, length",
    [
        (65536, 4096),
        (0, 4096),
        (MIB, 4096),
        (4096 + 1, 4096),
        (1 << 41, 4096),
        (MIB - 4096, 1 << 40),
        (1 << 63, 4096),
    ],
)
def test_logs_that_write_elsewhere(image, cairn, target, length):
    image.log_entry(0, 1, [(target, bytes(4096) if length == 4096 else length)])
    image.pending()
    image.save()
    for words in (["-r"], []):
        assert cairn("io", *words, "-f", "vhdx", "-c", "write 0 512", "a.vhdx", ok=False).code == 1
    assert open("a.vhdx", "rb").read() == image.bytes


def test_truncated_file_with_log(image, cairn):
    image.log_entry(0, 1, [(image.bat, swapped(image))], flushed=len(image.bytes) + MIB)
    image.pending()
    image.save()
    assert "truncated" in cairn("info", "a.vhdx", ok=False).err
    assert open("a.vhdx", "rb").read() == image.bytes
    shape_one(image)
    image.log_entry(0, 1, [(image.bat, swapped(image))], last=1 << 62)
    image.save()
    assert "to become" in cairn("io", "-f", "vhdx", "-c", "write 0 512", "a.vhdx", ok=False).err


def test_damaged_log(image, cairn, qemu):
    image.pending()
    image.save()
    assert (
        "log is damaged" in cairn("io", "-f", "vhdx", "-c", "write 0 512", "a.vhdx", ok=False).err
    )
    reads(cairn, "a.vhdx", "1 0 1M")
    assert cairn("check", "a.vhdx", ok=False).code == 2
    cairn("check", "-r", "all", "a.vhdx")
    qemu("check", "a.vhdx")
    cairn("io", "-f", "vhdx", "-c", "write -q 0 512", "a.vhdx")


# --- parents ---


@pytest.fixture
def pair(image, cairn):
    cairn(
        "create",
        "-q",
        "-f",
        "vhdx",
        "-o",
        "backing_file=a.vhdx,backing_fmt=vhdx,block_size=2M",
        "child.vhdx",
    )
    cairn(
        "io",
        "-f",
        "vhdx",
        "-c",
        "write -q -P 7 1000 2000",
        "-c",
        "write -q -P 8 2M 512k",
        "-c",
        "write -q -P 9 6M 2M",
        "child.vhdx",
    )


def test_child(pair, cairn, qemu):
    def good(name="child.vhdx"):
        reads(
            cairn,
            name,
            "1 0 1000",
            "7 1000 2000",
            "1 3000 4k",
            "0 1M 1M",
            "8 2M 512k",
            "2 2560k 512k",
            "0 3M 3M",
            "9 6M 2M",
        )

    good()
    parent, child = pyvhdi.file(), pyvhdi.file()
    parent.open("a.vhdx")
    child.open("child.vhdx")
    child.set_parent(parent)
    cairn("convert", "-O", "raw", "child.vhdx", "child.raw")
    assert child.read_buffer_at_offset(8 * MIB, 0) == open("child.raw", "rb").read()
    assert cairn("check", "--output=json", "child.vhdx").json()["check-errors"] == 0
    info = cairn("info", "--output=json", "child.vhdx").json()
    assert (
        info["backing-filename"] == "a.vhdx"
        and info["format-specific"]["data"]["subformat"] == "differencing"
    )
    states = Vhdx("child.vhdx")
    assert [states.get(states.bat + 8 * i, "Q") & 7 for i in range(4)] == [7, 7, 0, 6]
    cairn(
        "io",
        "-f",
        "vhdx",
        "-d",
        "unmap",
        "-c",
        "discard -q 0 2M",
        "-c",
        "write -q -z 4M 2M",
        "child.vhdx",
    )
    reads(cairn, "child.vhdx", "0 0 2M", "8 2M 512k", "0 4M 2M")
    cairn("resize", "-f", "vhdx", "child.vhdx", "100M")
    reads(cairn, "child.vhdx", "2 2560k 512k", "9 6M 2M", "0 8M 92M")


def test_qemus_name_knows_less(image, ours, qemu, folder):
    """Neither our facts nor our options of creation."""
    for words in (
        ["info", "a.vhdx"],
        ["info", "--output=json", "a.vhdx"],
        ["create", "-f", "vhdx", "-o", "help"],
        ["check", "a.vhdx"],
        ["create", "-f", "vhdx", "-o", "logical_sector_size=4096", "b.vhdx", "4M"],
        ["create", "-f", "vhdx", "-b", "a.vhdx", "-F", "vhdx", "b.vhdx"],
    ):
        mine, theirs = (tool(*words, ok=False) for tool in (ours, qemu))
        assert (mine.code, mine.out, mine.err) == (theirs.code, theirs.out, theirs.err), words


def test_grandchild_in_a_folder(pair, cairn):
    os.mkdir("sub")
    cairn(
        "create",
        "-q",
        "-f",
        "vhdx",
        "-o",
        "backing_file=../child.vhdx,backing_fmt=vhdx",
        "sub/leaf.vhdx",
    )
    reads(cairn, "sub/leaf.vhdx", "7 1000 2000", "2 2560k 512k")
    assert cairn("check", "--output=json", "sub/leaf.vhdx").json()["check-errors"] == 0


def test_changed_parent(pair, cairn):
    cairn("io", "-f", "vhdx", "-c", "write -q 0 512", "a.vhdx")
    result = cairn("io", "-r", "-f", "vhdx", "-c", "read 0 512", "child.vhdx", ok=False)
    assert "was modified after this disk was created" in result.err


@pytest.mark.parametrize("path", ["\\\\server\\share\\a.vhdx", "nbd:unix:/x", "C:\\disks\\a.vhdx"])
def test_strange_names_of_parents(pair, cairn, path):
    """Only the bare name counts, in the image's own folder."""
    child = Vhdx("child.vhdx")
    old = ".\\a.vhdx".encode("utf-16-le")
    locator = child.item("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C")
    new = path.encode("utf-16-le")
    end = child.bytes.index(old, locator)
    child.bytes[end : end + len(new)] = new
    count = child.get(locator + 18, "H")
    for i in range(count):
        if child.get(locator + 20 + 12 * i + 4) == end - locator:
            child.put(locator + 20 + 12 * i + 10, "H", len(new))
    child.put(
        child.entry("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C") + 20, "I", end - locator + len(new)
    )
    child.save()
    result = cairn("io", "-r", "-f", "vhdx", "-c", "read -q -P 7 1000 2000", "child.vhdx", ok=False)
    assert (result.code == 0) == path.endswith("a.vhdx"), result.err


# --- malformed ---

PARAMETERS = "CAA16737-FA36-4D43-B3B6-33F0AA44E76B"
SIZE = "2FA54224-CD1B-4876-B211-5DBED83BF4B8"
LOGICAL = "8141BF1D-A96F-4709-BA47-F233A8FAAB5F"
PHYSICAL = "CDA348C7-445D-4471-9CC9-E9885251C556"
PAST = 1 << 40


def region_at(v, at, guid):
    return v.bytes.index(guid, at)


def region_field(guid, offset, fmt, value):
    return lambda v: v.regions(lambda at: v.put(region_at(v, at, guid) + offset, fmt, value))


def more_regions(fill):
    def change(v):
        def one(at):
            v.put(at + 8, "I", 3)
            v.put(at + 16 + 64, "16sQII", *fill)

        v.regions(one)

    return change


REFUSED = {
    "signature": (lambda v: v.put(0, "8s", b"vhdxfilf"), "not a VHDX file"),
    "headers bad": (
        lambda v: [v.put(at + 100, "B", 1) for at in v.HEADERS],
        "No valid VHDX header found",
    ),
    "header signatures": (lambda v: v.headers(0, "4s", b"haed"), "No valid VHDX header found"),
    "version": (lambda v: v.headers(66, "H", 2), "version 2 is not supported"),
    "equal numbers": (lambda v: v.headers(8, "Q", 5), "No valid VHDX header found"),
    "log version": (lambda v: v.headers(64, "H", 1), "log version"),
    "log offset 0": (lambda v: v.headers(72, "Q", 0), "log offset 0"),
    "log offset unaligned": (lambda v: v.headers(72, "Q", MIB + 4096), "log offset"),
    "log offset huge": (lambda v: v.headers(72, "Q", (1 << 64) - MIB), "log offset"),
    "log length": (lambda v: v.headers(68, "I", MIB + 4096), "log length"),
    "log over table": (lambda v: v.headers(72, "Q", v.bat), "overlaps with region"),
    "log over payload": (
        lambda v: v.headers(72, "Q", v.get(v.bat, "Q") & -MIB),
        "overlaps with region",
    ),
    "region tables": (
        lambda v: [v.put(at, "4s", b"rege") for at in v.REGIONS],
        "both region tables",
    ),
    "region count": (
        lambda v: v.regions(lambda at: v.put(at + 8, "I", 2048)),
        "both region tables",
    ),
    "no table": (region_field(BAT, 0, "16s", b"x" * 16), "no block allocation table"),
    "no metadata": (region_field(METADATA, 0, "16s", b"x" * 16), "no metadata"),
    "table twice": (more_regions((BAT, 5 * MIB, MIB, 1)), "is there twice"),
    "unknown required region": (
        more_regions((b"x" * 16, 5 * MIB, MIB, 1)),
        "78787878-7878-7878-7878-787878787878 is not known",
    ),
    "regions overlap": (
        lambda v: region_field(METADATA, 16, "Q", v.bat)(v),
        "overlaps with region",
    ),
    "region unaligned": (region_field(METADATA, 16, "Q", 3 * MIB + 512), "not aligned"),
    "region low": (region_field(METADATA, 16, "Q", 0), "not aligned"),
    "region past the end": (region_field(BAT, 16, "Q", PAST), "past the end"),
    "region wraps": (region_field(BAT, 16, "Q", (1 << 64) - MIB), "past the end"),
    "table length 0": (region_field(BAT, 24, "I", 0), "too small"),
    "metadata signature": (lambda v: v.put(v.metadata, "8s", b"metadate"), "signature"),
    "metadata count": (lambda v: v.put(v.metadata + 10, "H", 2048), "too many"),
    "item missing": (
        lambda v: (v.put(v.entry(SIZE) + 24, "I", 0), v.put(v.entry(SIZE), "16s", b"x" * 16)),
        "virtual disk size is missing",
    ),
    "item twice": (
        lambda v: v.put(v.entry(PHYSICAL), "16s", uuid.UUID(LOGICAL).bytes_le),
        "is there twice",
    ),
    "item offset 0": (lambda v: v.put(v.entry(SIZE) + 16, "I", 0), "not inside"),
    "item outside": (lambda v: v.put(v.entry(SIZE) + 16, "I", MIB - 4), "not inside"),
    "item too long": (lambda v: v.put(v.entry(SIZE) + 20, "I", 2 * MIB), "not inside"),
    "item short": (lambda v: v.put(v.entry(SIZE) + 20, "I", 4), "only 4 bytes"),
    "unknown required item": (lambda v: v.put(v.entry(PHYSICAL), "16s", b"x" * 16), "is not known"),
    **{
        f"block size {n}": (lambda v, n=n: v.put(v.item(PARAMETERS), "I", n), "block size")
        for n in (0, 1, 512 << 10, 3 * MIB, 512 * MIB, 0xFFFFFFFF)
    },
    **{
        f"logical sector {n}": (lambda v, n=n: v.put(v.item(LOGICAL), "I", n), "logical sector")
        for n in (0, 1, 1024, 0xFFFFFFFF)
    },
    **{
        f"physical sector {n}": (lambda v, n=n: v.put(v.item(PHYSICAL), "I", n), "physical sector")
        for n in (0, 8192)
    },
    "size unaligned": (lambda v: v.put(v.item(SIZE), "Q", 8 * MIB - 1), "whole sectors"),
    "size too large": (lambda v: v.put(v.item(SIZE), "Q", (64 << 40) + 512), "64 TiB"),
    "size wraps": (lambda v: v.put(v.item(SIZE), "Q", (1 << 64) - 512), "64 TiB"),
    "size beyond the table": (lambda v: v.put(v.item(SIZE), "Q", 64 << 40), "too small"),
    "parent without locator": (lambda v: v.put(v.item(PARAMETERS) + 4, "I", 2), "parent locator"),
    "entry past the end": (
        lambda v: v.put(v.bat, "Q", PAST | 6),
        f"VHDX BAT entry 0 start offset {PAST} points after end of file",
    ),
    "entry overflow": (
        lambda v: v.put(v.bat, "Q", (1 << 63) - MIB | 6),
        "VHDX BAT entry 0 offset overflow.",
    ),
    "entry over log": (lambda v: v.put(v.bat, "Q", MIB | 6), "overlaps with region"),
    "entry over metadata": (lambda v: v.put(v.bat, "Q", v.metadata | 6), "overlaps with region"),
}


@pytest.mark.parametrize("row", REFUSED)
def test_refused(image, cairn, row):
    change, words = REFUSED[row]
    change(image)
    image.save()
    for verb in (["info", "-f", "vhdx"], ["io", "-f", "vhdx", "-c", "write 0 512"]):
        result = cairn(*verb, "a.vhdx", ok=False)
        assert result.code == 1 and words in result.err and "a.vhdx" in result.err, result.err
    assert open("a.vhdx", "rb").read() == image.bytes


BAD_ENTRIES = {
    "reserved state": lambda v: 4,
    "partial without parent": lambda v: v.get(v.bat + 16, "Q") | 7,
    "in the header": lambda v: 6,
    "shared": lambda v: v.get(v.bat, "Q"),
    "reserved bits": lambda v: v.get(v.bat + 16, "Q") | 8,
}


@pytest.mark.parametrize("row", BAD_ENTRIES)
def test_bad_entries_are_errors_of_their_blocks(image, cairn, row):
    image.put(image.bat + 16, "Q", BAD_ENTRIES[row](image))
    image.save()
    if row != "shared":
        reads(cairn, "a.vhdx", "1 0 1M")
    assert "Input/output error" in reads(cairn, "a.vhdx", "0 2M 1M", ok=False).out
    cairn("io", "-f", "vhdx", "-c", "write 2M 512", "a.vhdx", ok=False)
    assert cairn("check", "-f", "vhdx", "a.vhdx", ok=False).code == 2
    assert open("a.vhdx", "rb").read()[8 * MIB :] == image.bytes[8 * MIB :]


def test_check_repairs_what_has_a_copy(image, cairn, qemu):
    image.put(image.HEADERS[0] + 4, "I", 0)
    image.put(image.REGIONS[0] + 4, "I", 0)
    image.put(image.bat + 8, "Q", 5 * MIB | 2)
    image.save()
    reads(cairn, "a.vhdx", "1 0 1M", "0 1M 1M", "2 2M 1M")
    assert cairn("check", "a.vhdx", ok=False).code == 2
    cairn("check", "-r", "all", "a.vhdx")
    assert cairn("check", "--output=json", "a.vhdx").json()["check-errors"] == 0
    qemu("check", "a.vhdx")
    reads(cairn, "a.vhdx", "1 0 1M", "0 1M 1M", "2 2M 1M")


def test_curious_but_good(image, cairn, qemu):
    """Twin headers, an unknown region, a stray bitmap entry, a cut last block, no log."""
    image.bytes[image.HEADERS[1] : image.HEADERS[1] + 4096] = image.bytes[
        image.HEADERS[0] : image.HEADERS[0] + 4096
    ]
    more_regions((b"x" * 16, 4 * MIB, MIB, 0))(image)
    image.headers(68, "I", 0)
    image.save()
    reads(cairn, "a.vhdx", "1 0 1M", "2 2M 1M")
    cairn("io", "-f", "vhdx", "-c", "write -q -P 5 5M 1M", "a.vhdx")
    after = Vhdx("a.vhdx")
    assert (
        after.log_length == MIB
        and b"x" * 16 in after.bytes[after.REGIONS[0] : after.REGIONS[0] + 65536]
    )
    # The new block lies in front of room that was written out as zeroes.
    cairn("check", "-r", "leaks", "a.vhdx")
    assert cairn("check", "--output=json", "a.vhdx").json()["check-errors"] == 0
    reads(cairn, "a.vhdx", "1 0 1M", "2 2M 1M", "5 5M 1M")


def test_empty_disk(folder, cairn):
    cairn("create", "-q", "-f", "vhdx", "a.vhdx", "0")
    assert cairn("info", "--output=json", "a.vhdx").json()["virtual-size"] == 0
    cairn("resize", "-f", "vhdx", "a.vhdx", "10M")
    reads(cairn, "a.vhdx", "0 0 10M")
