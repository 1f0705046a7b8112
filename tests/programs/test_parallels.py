"""Parallels images: ours read by QEMU and ploop, QEMU's read by us, images that lie."""
import hashlib
import random
import struct

import pytest

from conftest import CAIRN, call

MIB = 1 << 20
IN_USE = 0x746f6e59


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
    cairn("io", "-f", "parallels", *[word for i in range(4) for word in ("-c", f"write -P {i + 1} {i}M 1M")], "a.hdd")
    return "a.hdd"


@pytest.mark.parametrize("cluster", ["512", "1000", "64k", "1M", "3M"])
@pytest.mark.parametrize("size", ["0", "1", "513", "1025k", "10M"])
def test_created_as_qemu_does(folder, ours, qemu, cluster, size):
    mine = ours("create", "-f", "parallels", "-o", f"cluster_size={cluster}", "a.hdd", size)
    theirs = qemu("create", "-f", "parallels", "-o", f"cluster_size={cluster}", "b.hdd", size)
    assert mine.out.replace("a.hdd", "b.hdd") == theirs.out
    assert bytes_of("a.hdd") == bytes_of("b.hdd")


def test_what_qemu_says_of_options_and_verbs(folder, ours, qemu):
    assert ours("create", "-f", "parallels", "-o", "help", "x").out == qemu("create", "-f", "parallels", "-o", "help", "x").out
    ours("create", "-q", "-f", "parallels", "a.hdd", "10M")
    for words in (["info", "a.hdd"], ["info", "--output=json", "a.hdd"], ["check", "a.hdd"], ["map", "--output=json", "a.hdd"],
                  ["resize", "a.hdd", "20M"], ["snapshot", "-c", "X", "a.hdd"], ["commit", "a.hdd"],
                  ["measure", "-O", "parallels", "a.hdd"], ["convert", "-c", "-O", "parallels", "a.hdd", "b.hdd"],
                  ["create", "-f", "parallels", "-o", "cluster_size=0", "x", "1M"],
                  ["create", "-f", "parallels", "-o", "cluster_size=2147483647", "x", "1M"],
                  ["create", "-f", "parallels", "-o", "cluster_size=512", "x", "3T"],
                  ["create", "-f", "parallels", "-b", "a.hdd", "-F", "parallels", "x"]):
        mine, theirs = ours(*words, ok=False), qemu(*words, ok=False)
        assert (mine.code, mine.out, mine.err) == (theirs.code, theirs.out, theirs.err), words


@pytest.mark.parametrize("words, message", [
    (["-o", "cluster_size=2143297536", "x.hdd", "1M"], "Cluster size is too large"),
    (["-o", "cluster_size=512", "x.hdd", str((1 << 41) - 512)], "Image size is too large for this cluster size"),
])
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
    assert cairn("map", "--output=json", "theirs.hdd").out == qemu("map", "--output=json", "theirs.hdd").out
    if cluster in ("64k", "1M"):
        # ploop knows these sizes only, and no sparse files.
        with open("dense.hdd", "wb") as dense:
            dense.write(bytes_of("ours.hdd"))
        call("ploop", "check", "-F", "dense.hdd")


def test_allocation(folder, cairn, qemu):
    """Holes first, then the end; what is free at the end leaves the file."""
    cairn("create", "-q", "-f", "parallels", "a.hdd", "10M")
    assert number("a.hdd", 44) == 0
    cairn("io", "-f", "parallels", "-d", "unmap", "-c", "write -P 1 5M 4k", "-c", "write -P 2 1020k 8k", "-c", "write -z 5M 1M",
          "-c", "flush", "-c", "write -P 3 7M 2M", "-c", "discard 0 1M", "-c", "flush", "-c", "write -P 4 3M 512", "a.hdd")
    assert [number("a.hdd", 64 + 4 * i) for i in range(10)] == [0, 3, 0, 2, 0, 0, 0, 1, 4, 0]
    assert len(bytes_of("a.hdd")) == 5 * MIB and number("a.hdd", 44) == 0
    cairn("io", "-f", "parallels", "-d", "unmap", "-c", "read -P 0 3146240 1000000", "-c", "discard 8M 1M", "a.hdd")
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


def old_image(name, tracks=63, entries=33, sectors=2000, data_off=0):
    header = struct.pack("<16sIIIIIQIIIQ", b"WithoutFreeSpace", 2, 16, 3, tracks, entries, sectors | 7 << 32, 0, data_off, 0, 0)
    table = struct.pack("<I", 1) + bytes(4 * (entries - 1))
    with open(name, "wb") as image:
        image.write((header + table).ljust(512, b"\0") + b"\x5a" * (tracks * 512))


def test_old_kind(folder, cairn, qemu):
    old_image("a.hdd")
    assert cairn("info", "--output=json", "a.hdd").json()["virtual-size"] == 2000 * 512
    cairn("io", "-f", "parallels", "-c", "read -P 0x5a 0 32256", "-c", "read -P 0 32256 32256", "-c", "write -P 7 900k 4k",
          "-c", "write -P 8 0 512", "a.hdd")
    assert bytes_of("a.hdd")[:16] == b"WithoutFreeSpace" and number("a.hdd", 36, "Q") == 2000 | 7 << 32
    assert number("a.hdd", 64 + 4 * (900 * 1024 // 32256)) == 64
    qemu("check", "-f", "parallels", "a.hdd")
    qemu("convert", "-O", "raw", "a.hdd", "b.raw")
    cairn("compare", "a.hdd", "b.raw")


CHECKS = {
    "unclean": lambda patch: patch("a.hdd", 44, "I", IN_USE),
    "data_off_small": lambda patch: patch("a.hdd", 48, "I", 1),
    "data_off_large": lambda patch: patch("a.hdd", 48, "I", 0xffffffff),
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
        mine, theirs = ours("check", *words, "a.hdd", ok=False), qemu("check", *words, "b.hdd", ok=False)
        assert (mine.code, mine.out.replace("a.hdd", "b.hdd"), mine.err) == (theirs.code, theirs.out, theirs.err), words
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
    result = cairn("io", "-f", "parallels", "-c", "write -P 9 0 1M", "-c", "read -P 1 1M 1M", "a.hdd")
    assert "Repairing image was not closed correctly" in result.err
    assert "Repairing duplicate offset in BAT entry 1" in result.err
    qemu("check", "a.hdd")


def test_killed_writer(filled, cairn, qemu):
    """The mark stays, and the space for later; the next writer brings both in order."""
    call("sh", "-c", f"{CAIRN} io -f parallels -c 'write -P 8 0 4k' -c 'flush' -c 'abort' a.hdd", ok=False)
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


def test_an_entry_behind_the_end_is_dropped(filled, cairn, qemu, patch):
    patch("a.hdd", 68, "I", 4711)
    result = cairn("check", "a.hdd", ok=False)
    assert result.code == 2 and "ERROR cluster 1 is outside image" in result.err
    cairn("io", "-f", "parallels", "-r", "-c", "read -P 0 1M 1M", "a.hdd")
    cairn("check", "-r", "all", "a.hdd")
    qemu("check", "a.hdd")
    assert number("a.hdd", 68) == 0


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
    cairn("io", "-f", "parallels", "-c", "write -P 9 0 512", "-c", f"read -P 0 512 {MIB - 512}", "a.hdd")


# --- the extension ---

BITMAP = "e4f2eed0-37fe-4539-b50b-85d2e7fd235f"


def extension(sectors, dirty, l1, granularity=128, magic=0xab234cef23dcea87, feature=0x20385fae252cb34a, flags=0,
              l1_size=None, data_size=None, disk=None):
    data = struct.pack("<Q16sII", disk or sectors, bytes.fromhex(BITMAP.replace("-", "")), granularity,
                       len(l1) if l1_size is None else l1_size) + struct.pack(f"<{len(l1)}Q", *l1)
    size = len(data) if data_size is None else data_size
    body = (struct.pack("<QQII", feature, flags, size, 0) + data).ljust(MIB - 24, b"\0")
    return struct.pack("<Q", magic) + hashlib.md5(body).digest() + body, bytes(dirty).ljust(MIB, b"\0")


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
    served = call("/usr/bin/python3", "-c", f"""
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
""")
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


@pytest.mark.parametrize("sector", [1 << 40, 0xffffffffffffffff, 7 * 2048])
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
    (28, "I", 0xffffffff, "Invalid image: Too big cluster"),
    (32, "I", 0x20000000, "Catalog too large"),
    (32, "I", 0x40000001, "Catalog too large"),
    (32, "I", 0xffffffff, "Catalog too large"),
    (36, "Q", (1 << 64) - 1, "Could not refresh total sector count: File too large"),
    (36, "Q", (1 << 63) - 1, "Could not refresh total sector count: File too large"),
    (56, "Q", (1 << 54) - 1, "Invalid image: Too big offset"),
]
STRICTER = [
    (32, "I", 0x1fffffff, "behind the end of the file"),
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
    result = cairn("io", "-f", "parallels", "-c", "read -P 1 0 1M", "-c", "write -P 9 0 512", "a.hdd")
    assert "says that the disk is empty" in result.err
    assert number("a.hdd", 52) == 0


def test_entries_at_random_are_survived(folder, cairn):
    source = random.Random(5)
    for case in range(8):
        cairn("create", "-q", "-f", "parallels", "-o", "cluster_size=4k", "a.hdd", "256k")
        with open("a.hdd", "r+b") as image:
            image.seek(64)
            image.write(struct.pack("<64I", *[source.choice([0, 1, 2, 3, 5, 40, 0xffffffff, source.randrange(70)])
                                              for _ in range(64)]))
            image.truncate(source.randrange(40000, 300000))
        cairn("check", "a.hdd", ok=False)
        cairn("check", "-r", "all", "a.hdd")
        assert cairn("check", "a.hdd").code == 0


# --- bundles ---

ROOT, MIDDLE, BRANCH = (f"{{{digit * 8}-0000-0000-0000-000000000000}}" for digit in "123")
TOP = "{5fbaabe3-6958-40ff-92a7-860e329aab41}"
NONE = "{00000000-0000-0000-0000-000000000000}"


def descriptor(images, shots=(), top=None, sectors=8192, cluster=2048, padding="0", version="1.0", storages=1):
    storage = f"<Storage><Start>0</Start><End>{sectors}</End><Blocksize>{cluster}</Blocksize>" + "".join(
        f"<Image><GUID>{guid}</GUID><Type>{kind}</Type><File>{file}</File></Image>" for guid, kind, file in images) + "</Storage>"
    tree = "".join(f"<Shot><GUID>{guid}</GUID><ParentGUID>{parent}</ParentGUID></Shot>" for guid, parent in shots)
    tops = f"<TopGUID>{top}</TopGUID>" if top else ""
    return f"""<?xml version='1.0' encoding='UTF-8'?>
<Parallels_disk_image Version="{version}">
    <Disk_Parameters>
        <Disk_size> {sectors} </Disk_size><Cylinders>16</Cylinders><Heads>16</Heads><Sectors>32</Sectors>
        <Padding>{padding}</Padding><Unknown><Deep/></Unknown>
    </Disk_Parameters>
    <StorageData>{storage * storages}</StorageData>
    <Snapshots>{tops}{tree}</Snapshots>
</Parallels_disk_image>
"""


CHAIN = dict(images=[(ROOT, "Plain", "root.hds"), (MIDDLE, "Compressed", "middle.hds"), (BRANCH, "Compressed", "branch.hds"),
                     (TOP, "Compressed", "top.hds")],
             shots=[(ROOT, NONE), (MIDDLE, ROOT), (BRANCH, ROOT), (TOP, MIDDLE)])


@pytest.fixture
def bundle(folder, cairn):
    """A plain root of bytes 1; over it MIDDLE with 2 in the second MiB and BRANCH with 9; the top has 3 in the third one."""
    (folder / "d.hdd").mkdir()
    (folder / "d.hdd/root.hds").write_bytes(b"\1" * (4 * MIB))
    for name in ("middle", "branch", "top"):
        cairn("create", "-q", "-f", "parallels", f"d.hdd/{name}.hds", "4M")
    cairn("io", "-f", "parallels", "-c", "write -P 2 1M 1M", "d.hdd/middle.hds")
    cairn("io", "-f", "parallels", "-c", "write -P 9 1M 1M", "d.hdd/branch.hds")
    cairn("io", "-f", "parallels", "-c", "write -P 3 2M 1M", "d.hdd/top.hds")

    def write(**more):
        (folder / "d.hdd/DiskDescriptor.xml").write_text(descriptor(**{**CHAIN, **more}))
        return "d.hdd"
    return write


def mib(*values):
    return b"".join(bytes([value]) * MIB for value in values)


def test_a_bundle_is_the_state_on_top(bundle, cairn):
    for name in (bundle(), "d.hdd/DiskDescriptor.xml"):
        info = cairn("info", "--output=json", name).json()
        assert info["format"] == "parallels" and info["virtual-size"] == 4 * MIB and len(info["snapshots"]) == 3
        cairn("convert", "-O", "raw", name, "out.raw")
        assert bytes_of("out.raw") == mib(1, 2, 3, 1)
        assert cairn("check", name).code == 0
    cairn("compare", "d.hdd", "out.raw")


@pytest.mark.parametrize("guid, expected", [(ROOT, (1, 1, 1, 1)), (MIDDLE, (1, 2, 1, 1)), (BRANCH, (1, 9, 1, 1)),
                                            (TOP, (1, 2, 3, 1))])
def test_snapshots_of_a_bundle(bundle, cairn, guid, expected):
    bundle()
    cairn("convert", "-O", "raw", "--image-opts", f"driver=parallels,snapshot={guid},file.filename=d.hdd/DiskDescriptor.xml",
          "out.raw")
    assert bytes_of("out.raw") == mib(*expected)
    if guid in (ROOT, MIDDLE):
        cairn("convert", "-O", "raw", "-l", guid.strip("{}"), "d.hdd", "out.raw")
        assert bytes_of("out.raw") == mib(*expected)


def test_writes_go_to_the_top(bundle, cairn, qemu):
    bundle()
    before = {name: bytes_of(f"d.hdd/{name}.hds") for name in ("root", "middle", "branch")}
    cairn("io", "-f", "parallels", "-d", "unmap", "-c", "write -P 7 1000k 100k", "-c", "write -z 3M 1M", "-c", "discard 2M 1M", "d.hdd")
    assert all(bytes_of(f"d.hdd/{name}.hds") == data for name, data in before.items())
    data = bytearray(mib(1, 2, 3, 0))
    data[1000 * 1024:1100 * 1024] = b"\7" * (100 * 1024)
    cairn("convert", "-O", "raw", "d.hdd", "out.raw")
    assert bytes_of("out.raw") == bytes(data)
    qemu("check", "d.hdd/top.hds")
    denied = cairn("io", "--image-opts", "-c", "write 0 1k",
                   f"driver=parallels,snapshot={MIDDLE},file.filename=d.hdd/DiskDescriptor.xml", ok=False)
    assert denied.code == 1


def test_another_top(bundle, cairn):
    bundle(top=BRANCH)
    cairn("io", "-r", "-f", "parallels", "-c", "read -P 9 1M 1M", "-c", "read -P 1 2M 1M", "d.hdd/")


def test_a_bundle_of_one_image(bundle, cairn, qemu):
    bundle(images=[(TOP, "Compressed", "top.hds")], shots=[])
    cairn("io", "-f", "parallels", "-c", "write -P 4 0 1M", "-c", "read -P 3 2M 1M", "d.hdd")
    qemu("check", "d.hdd/top.hds")
    bundle(images=[(ROOT, "Plain", "root.hds")], shots=[(ROOT, NONE)])
    cairn("io", "-f", "parallels", "-c", "write -P 4 0 1M", "-c", "read -P 1 1M 3M", "d.hdd")
    assert bytes_of("d.hdd/root.hds") == mib(4, 1, 1, 1)


def test_check_names_the_image(bundle, cairn, patch):
    bundle()
    patch("d.hdd/middle.hds", 44, "I", IN_USE)
    result = cairn("check", "d.hdd", ok=False)
    assert result.code == 2 and "middle.hds: ERROR image was not closed correctly" in result.err


def test_files_outside_of_the_folder_obey_the_policy(bundle, cairn, folder):
    (folder / "d.hdd/root.hds").rename(folder / "outside.raw")
    for file, link in ((str(folder / "outside.raw"), None), ("../outside.raw", None), ("root.hds", "../outside.raw")):
        bundle(images=[(ROOT, "Plain", file)] + CHAIN["images"][1:])
        if link:
            (folder / "d.hdd/root.hds").symlink_to(link)
        cairn("convert", "-O", "raw", "d.hdd", "out.raw")
        assert bytes_of("out.raw") == mib(1, 2, 3, 1)
        result = cairn("convert", "--untrusted", "-f", "parallels", "-O", "raw", "d.hdd", "out2.raw", ok=False)
        assert result.code == 1 and "may not be opened here" in result.err
        assert cairn("info", "--untrusted", "d.hdd").code == 0


def test_an_untrusted_bundle(bundle, cairn):
    bundle()
    cairn("convert", "--untrusted", "-f", "parallels", "-O", "raw", "d.hdd", "out.raw")
    assert bytes_of("out.raw") == mib(1, 2, 3, 1)


BUNDLE_LIES = {
    "no_xml": (lambda text: text[:300], "no XML"),
    "version": (lambda text: text.replace('Version="1.0"', 'Version="2"'), "version '2' is not 1.0"),
    "padding": (lambda text: text.replace("<Padding>0", "<Padding>1"), "padding"),
    "split": (lambda text: text.replace("</StorageData>", "<Storage/></StorageData>"), "split into 2 parts"),
    "no_storage": (lambda text: text.replace("StorageData>", "Other>"), "there is no Storage"),
    "end": (lambda text: text.replace("<End>8192", "<End>8191"), "does not cover the disk"),
    "size": (lambda text: text.replace("8192", "99999999999999999999"), "Disk_size is no number"),
    "huge": (lambda text: text.replace("8192", "18446744073709551615"), "too large"),
    "other_size": (lambda text: text.replace("8192", "8191"), "the image has 4194304 bytes"),
    "cluster": (lambda text: text.replace("<Blocksize>2048", "<Blocksize>63"), "clusters of 2048 sectors"),
    "type": (lambda text: text.replace("Compressed", "Odd", 1), "unknown type 'Odd'"),
    "guid": (lambda text: text.replace(MIDDLE, "{1}", 1), "GUID is no GUID"),
    "file": (lambda text: text.replace("middle.hds", ""), "has no file name"),
    "missing": (lambda text: text.replace("middle.hds", "gone.hds"), "gone.hds"),
    "descriptor": (lambda text: text.replace("middle.hds", "DiskDescriptor.xml"), "Image not in Parallels format"),
    "twice": (lambda text: text.replace("middle.hds", "top.hds"), "'top.hds' is named twice"),
    "folder": (lambda text: text.replace("middle.hds", "."), "d.hdd"),
    "same_image": (lambda text: text.replace(f"<Image><GUID>{BRANCH}", f"<Image><GUID>{MIDDLE}"), "two images"),
    "same_shot": (lambda text: text.replace(f"<Shot><GUID>{BRANCH}", f"<Shot><GUID>{MIDDLE}"), "two shots"),
    "no_image": (lambda text: text.replace(f"<Shot><GUID>{BRANCH}", "<Shot><GUID>" + BRANCH.replace("3", "4")), "has no image"),
    "cycle": (lambda text: text.replace(f"{MIDDLE}</GUID><ParentGUID>{ROOT}", f"{MIDDLE}</GUID><ParentGUID>{TOP}"),
              "is its own ancestor"),
    "roots": (lambda text: text.replace(f"<ParentGUID>{ROOT}", f"<ParentGUID>{NONE}"), "3 shots have no parent"),
    "parent": (lambda text: text.replace(f"<ParentGUID>{MIDDLE}", "<ParentGUID>" + BRANCH.replace("3", "5")), "is missing"),
    "top": (lambda text: text.replace("<Snapshots>", "<Snapshots><TopGUID>" + BRANCH.replace("3", "6") + "</TopGUID>"), "has no state"),
    "plain": (lambda text: text.replace("Compressed</Type><File>top", "Plain</Type><File>top"), "is plain, but has a parent"),
    "long": (lambda text: text + " " * MIB, "has more than 1048576 bytes"),
    "entities": (lambda text: text.replace("<Parallels_disk", "<!DOCTYPE x [<!ENTITY a 'b'>]><Parallels_disk").replace(
        "<Padding>0", "<Padding>&a;"), "Padding is no number"),
    "deep": (lambda text: text.replace("<Unknown>", "<Unknown>" + "<a>" * 50000), "no XML"),
}


@pytest.mark.parametrize("lie", BUNDLE_LIES)
def test_descriptors_that_lie(bundle, cairn, folder, lie):
    change, message = BUNDLE_LIES[lie]
    bundle()
    name = folder / "d.hdd/DiskDescriptor.xml"
    name.write_text(change(name.read_text()))
    result = cairn("convert", "-f", "parallels", "-O", "raw", "d.hdd", "out.raw", ok=False)
    assert result.code == 1 and message in result.err and "d.hdd" in result.err


def test_a_plain_image_that_is_too_short(bundle, cairn, folder):
    bundle()
    (folder / "d.hdd/root.hds").write_bytes(bytes(MIB))
    result = cairn("map", "d.hdd", ok=False)
    assert result.code == 1 and "root.hds" in result.err and "shorter than the disk" in result.err


def test_folders_under_qemus_name(bundle, ours, qemu):
    bundle()
    for name in ("d.hdd", "d.hdd/DiskDescriptor.xml"):
        mine, theirs = ours("info", name, ok=False), qemu("info", name, ok=False)
        assert (mine.code, mine.out, mine.err) == (theirs.code, theirs.out, theirs.err)
