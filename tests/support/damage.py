"""Small qcow2 images and the ways in which they are damaged: (name, base, change) by row.

A base is made by qemu-img; a change edits the file's bytes."""
import struct

COPIED, COMPRESSED, MASK = 1 << 63, 1 << 62, 0x00FFFFFFFFFFFE00
DIRTY, CORRUPT = 1, 2

# name: (create options, size, commands of qemu-io, snapshots with their commands, more words of qemu-img)
BASES = {
    "plain": (
        "cluster_size=64k",
        "4M",
        ["write -P 1 0 256k", "write -c -P 2 1M 64k", "write -P 3 1280k 64k"],
        [],
        [],
    ),
    "small": ("cluster_size=512", "300k", ["write -P 1 0 200k", "write -c -P 2 210k 4k"], [], []),
    "zeroes": (
        "cluster_size=4k",
        "1M",
        ["write -P 1 0 64k", "write -z 16k 16k", "write -P 2 512k 8k"],
        [],
        [],
    ),
    "v2": (
        "compat=0.10,cluster_size=4k",
        "1M",
        ["write -P 1 0 64k", "write -c -P 2 512k 8k"],
        [],
        [],
    ),
    "extended": (
        "cluster_size=16k,extended_l2=on",
        "1M",
        ["write -P 1 0 40k", "write -z 64k 2k", "write -P 3 100k 1k", "write -c -P 2 512k 16k"],
        [],
        [],
    ),
    "snapshots": (
        "cluster_size=4k",
        "1M",
        ["write -P 1 0 64k", "write -c -P 4 256k 4k"],
        [("one", ["write -P 2 0 16k"]), ("two", ["write -P 3 32k 8k"])],
        [],
    ),
    "bitmaps": (
        "cluster_size=4k",
        "1M",
        ["write -P 1 0 64k"],
        [],
        [
            ["bitmap", "--add", "-g", "4k", "FILE", "b0"],
            ["bitmap", "--add", "-g", "64k", "FILE", "b1"],
        ],
    ),
    "bits1": ("cluster_size=1k,refcount_bits=1", "256k", ["write -P 1 0 100k"], [], []),
    "bits64": (
        "cluster_size=1k,refcount_bits=64",
        "256k",
        ["write -P 1 0 100k", "write -c -P 1 128k 8k"],
        [],
        [],
    ),
    "lazy": ("cluster_size=4k,lazy_refcounts=on", "1M", ["write -P 1 0 64k"], [], []),
}


def make(base, path, qemu, qemu_io):
    options, size, commands, snapshots, more = BASES[base]
    qemu("create", "-q", "-f", "qcow2", "-o", options, path, size)
    qemu_io(path, *commands)
    for name, after in snapshots:
        qemu("snapshot", "-c", name, path)
        qemu_io(path, *after)
    for words in more:
        qemu(*[path if word == "FILE" else word for word in words])


class Damaged:
    """A qcow2 image in memory."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.bytes = bytearray(file.read())
        self.cluster = 1 << self.get(20, "I")
        self.l1 = self.get(40)
        self.table = self.get(48)
        self.block = self.get(self.table) & ~511
        self.snapshots = self.get(64)
        self.order = self.get(96, "I") if self.get(4, "I") > 2 else 4
        self.extended = self.get(4, "I") > 2 and bool(self.get(72) & 16)

    def get(self, at, fmt="Q"):
        return struct.unpack_from(">" + fmt, self.bytes, at)[0]

    def put(self, at, value, fmt="Q"):
        if len(self.bytes) < at + 8:
            self.bytes.extend(bytes(at + 8 - len(self.bytes)))
        struct.pack_into(">" + fmt, self.bytes, at, value)

    def save(self, path):
        with open(path, "wb") as file:
            file.write(self.bytes)

    def l2(self, index=0, l1=None):
        return self.get((l1 or self.l1) + 8 * index) & MASK

    def entry(self, index, l1=0):
        """Where the L2 entry of guest cluster INDEX stands."""
        return self.l2(l1) + index * (16 if self.extended else 8)

    def host(self, index):
        return self.get(self.entry(index)) & MASK

    def refcount(self, cluster, value):
        bits = 1 << self.order
        if bits >= 8:
            at = self.block + cluster * bits // 8
            self.bytes[at : at + bits // 8] = value.to_bytes(bits // 8, "big")
        else:
            at, shift = self.block + cluster * bits // 8, cluster * bits % 8
            self.bytes[at] = self.bytes[at] & ~((1 << bits) - 1 << shift) | value << shift

    def end(self):
        """The number of clusters in the file."""
        return -(-len(self.bytes) // self.cluster)

    def grow(self, clusters=1):
        first = self.end()
        self.bytes.extend(bytes((first + clusters) * self.cluster - len(self.bytes)))
        return first

    def count(self, at):
        """The refcount of the cluster that holds byte AT is set to nought."""
        self.refcount(at // self.cluster, 0)


def leak(image, clusters=3):
    first = image.grow(clusters)
    for i in range(clusters):
        image.refcount(first + i, 1)


def incompatible(image, bits):
    image.put(72, image.get(72) | bits)


def swap(image, at, change):
    image.put(at, change(image.get(at)))


def snapshot_l1(image):
    return image.snapshots


def all_counts(image, value):
    for i in range(image.end()):
        image.refcount(i, value)


DAMAGES = [
    ("sound", "plain", lambda i: None),
    ("sound small", "small", lambda i: None),
    ("sound extended", "extended", lambda i: None),
    ("sound snapshots", "snapshots", lambda i: None),
    ("leaks", "plain", leak),
    ("leaks in small clusters", "small", lambda i: leak(i, 9)),
    ("a leak with one bit", "bits1", leak),
    ("a leak with 64 bits", "bits64", leak),
    ("too high", "plain", lambda i: i.refcount(i.host(0) // i.cluster, 3)),
    (
        "too high with 64 bits",
        "bits64",
        lambda i: i.refcount(i.host(0) // i.cluster, (1 << 64) - 1),
    ),
    ("too low under snapshots", "snapshots", lambda i: i.refcount(i.host(10) // i.cluster, 1)),
    ("zero for data", "plain", lambda i: i.count(i.host(1))),
    ("zero for an L2 table", "plain", lambda i: i.count(i.l2())),
    ("zero for the L1 table", "plain", lambda i: i.count(i.l1)),
    ("zero for the header", "plain", lambda i: i.count(0)),
    ("zero for the refcount table", "plain", lambda i: i.count(i.table)),
    ("zero for the refcount block", "plain", lambda i: i.count(i.block)),
    ("zero for the snapshot table", "snapshots", lambda i: i.count(i.snapshots)),
    ("zero for everything", "small", lambda i: all_counts(i, 0)),
    ("two for everything", "small", lambda i: all_counts(i, 2)),
    ("leak and error", "plain", lambda i: (leak(i), i.count(i.host(1)))),
    ("leak and too low", "snapshots", lambda i: (leak(i), i.refcount(i.host(10) // i.cluster, 1))),
    ("COPIED missing on data", "plain", lambda i: swap(i, i.entry(1), lambda e: e & ~COPIED)),
    ("COPIED missing on a table", "plain", lambda i: swap(i, i.l1, lambda e: e & ~COPIED)),
    ("COPIED and a leak", "plain", lambda i: (leak(i), swap(i, i.entry(1), lambda e: e & ~COPIED))),
    ("COPIED on shared data", "snapshots", lambda i: swap(i, i.entry(10), lambda e: e | COPIED)),
    ("COPIED on compressed", "plain", lambda i: swap(i, i.entry(16), lambda e: e | COPIED)),
    ("COPIED missing on zeroes", "zeroes", lambda i: swap(i, i.entry(5), lambda e: e & ~COPIED)),
    (
        "COPIED in an old table",
        "snapshots",
        lambda i: swap(i, i.l2(0, i.get(i.snapshots)), lambda e: e | COPIED),
    ),
    ("L1 reserved bits", "plain", lambda i: swap(i, i.l1, lambda e: e | 1 << 58 | 1)),
    ("L2 reserved bits", "plain", lambda i: swap(i, i.entry(1), lambda e: e | 1 << 57 | 4)),
    ("L2 table not aligned", "plain", lambda i: swap(i, i.l1, lambda e: e + 512)),
    ("L2 table past the end", "plain", lambda i: i.put(i.l1, COPIED | 1 << 30)),
    ("L2 table is the L1 table", "plain", lambda i: i.put(i.l1, COPIED | i.l1)),
    ("data not aligned", "plain", lambda i: swap(i, i.entry(1), lambda e: e + 512)),
    ("data past the end", "plain", lambda i: i.put(i.entry(1), COPIED | 1 << 30)),
    ("data behind the table", "plain", lambda i: i.put(i.entry(1), COPIED | 1 << 50)),
    ("data in the header", "plain", lambda i: i.put(i.entry(1), COPIED | i.table)),
    ("data shared by two entries", "plain", lambda i: i.put(i.entry(30), i.get(i.entry(1)))),
    ("zero cluster not aligned", "zeroes", lambda i: swap(i, i.entry(5), lambda e: e + 512)),
    (
        "zero cluster not aligned in a snapshot",
        "snapshots",
        lambda i: swap(i, i.l2(0, i.get(i.snapshots)) + 8, lambda e: e + 512 | 1),
    ),
    ("zero flag in version 2", "v2", lambda i: swap(i, i.entry(5), lambda e: e | 1)),
    ("compressed past the end", "plain", lambda i: i.put(i.entry(16), COMPRESSED | 1 << 40)),
    (
        "compressed across the end",
        "plain",
        lambda i: i.put(i.entry(16), COMPRESSED | 255 << 54 | i.end() * i.cluster - 600),
    ),
    (
        "compressed too low",
        "small",
        lambda i: i.refcount((i.get(i.entry(36, 6)) & (1 << 56) - 1) // 512 % 256, 1),
    ),
    ("block not aligned", "plain", lambda i: swap(i, i.table, lambda e: e + 512)),
    (
        "block not aligned elsewhere",
        "plain",
        lambda i: i.put(i.table + 8, (i.end() + 3) * i.cluster + 512),
    ),
    ("block reserved bits", "plain", lambda i: swap(i, i.table, lambda e: e | 1)),
    ("block past the end", "plain", lambda i: i.put(i.table + 8, (i.end() + 4) * i.cluster)),
    ("block far past the end", "plain", lambda i: i.put(i.table + 8, 1 << 62)),
    ("block past all files", "plain", lambda i: i.put(i.table + 8, (1 << 64) - (1 << 16))),
    ("first block past the end", "plain", lambda i: i.put(i.table, (i.end() + 4) * i.cluster)),
    ("block missing", "plain", lambda i: i.put(i.table, 0)),
    ("block twice", "plain", lambda i: i.put(i.table + 8, i.block)),
    ("block on data", "plain", lambda i: i.put(i.table + 8, i.host(0))),
    ("block on the L1 table", "plain", lambda i: i.put(i.table, i.l1)),
    ("second block missing", "small", lambda i: i.put(i.table + 8, 0)),
    (
        "table of noise",
        "plain",
        lambda i: [
            i.put(i.table + 8 * n, 0x123456789ABCDEF0 * n & (1 << 64) - 1) for n in range(1, 20)
        ],
    ),
    ("no refcount table", "plain", lambda i: i.put(56, 0, "I")),
    ("no refcount table, small", "small", lambda i: i.put(56, 0, "I")),
    ("no refcount table, snapshots", "snapshots", lambda i: i.put(56, 0, "I")),
    ("dirty bit", "plain", lambda i: incompatible(i, DIRTY)),
    ("dirty bit, leaks", "plain", lambda i: (incompatible(i, DIRTY), leak(i))),
    (
        "dirty bit, errors",
        "lazy",
        lambda i: (incompatible(i, DIRTY), i.count(i.host(1)), i.count(i.host(2))),
    ),
    ("corrupt bit", "plain", lambda i: incompatible(i, CORRUPT)),
    ("corrupt bit, leaks", "plain", lambda i: (incompatible(i, CORRUPT), leak(i))),
    (
        "corrupt bit, bad entry",
        "plain",
        lambda i: (incompatible(i, CORRUPT), swap(i, i.entry(1), lambda e: e + 512)),
    ),
    ("dirty and corrupt", "plain", lambda i: incompatible(i, DIRTY | CORRUPT)),
    ("subclusters of no cluster", "extended", lambda i: i.put(i.entry(20) + 8, 5)),
    ("subclusters both", "extended", lambda i: swap(i, i.entry(0) + 8, lambda e: e | 3 << 32)),
    ("subclusters of compressed", "extended", lambda i: i.put(i.entry(32) + 8, 7)),
    (
        "zero subclusters not aligned",
        "extended",
        lambda i: (swap(i, i.entry(6), lambda e: e + 512), i.put(i.entry(6) + 8, 0xFF << 32)),
    ),
    ("data subclusters not aligned", "extended", lambda i: swap(i, i.entry(6), lambda e: e + 512)),
    ("snapshot L1 not aligned", "snapshots", lambda i: swap(i, i.snapshots, lambda e: e + 512)),
    ("snapshot L1 too large", "snapshots", lambda i: i.put(i.snapshots + 8, 1 << 23, "I")),
    ("snapshot L1 past the end", "snapshots", lambda i: i.put(i.snapshots, 1 << 40)),
    (
        "snapshot data past the end",
        "snapshots",
        lambda i: i.put(i.l2(0, i.get(i.snapshots)), 1 << 40),
    ),
    ("snapshot without its disk size", "snapshots", lambda i: short_extra(i, 8)),
    ("snapshot without extra data", "snapshots", lambda i: short_extra(i, 0)),
    ("snapshot with much extra data", "snapshots", lambda i: long_extra(i, 2000)),
    ("snapshot with extra data", "snapshots", lambda i: long_extra(i, 40)),
    ("snapshot table too low", "snapshots", lambda i: i.put(60, 1, "I")),
    ("bitmap directory not counted", "bitmaps", lambda i: i.count(directory(i))),
    ("bitmap table not counted", "bitmaps", lambda i: i.count(i.get(directory(i)))),
    ("bitmaps without their bit", "bitmaps", lambda i: i.put(88, 0)),
    ("bitmap data past the end", "bitmaps", lambda i: i.put(i.get(directory(i)), 1 << 40)),
    ("bitmap table of noise", "bitmaps", lambda i: i.put(i.get(directory(i)), 0x1FF)),
]


def directory(image):
    """Where the bitmap directory lies."""
    at = image.get(100, "I")
    while image.get(at, "I") != 0x23852875:
        at += 8 + (image.get(at + 4, "I") + 7 & ~7)
    return image.get(at + 24)


def entries(image):
    """The snapshot table's entries as bytes, with their extra data's length at 36."""
    at, found = image.snapshots, []
    for _ in range(image.get(60, "I")):
        length = 40 + image.get(at + 36, "I") + image.get(at + 12, "H") + image.get(at + 14, "H")
        found.append(bytearray(image.bytes[at : at + length]))
        at += length + 7 & ~7
    return found


def store(image, found):
    table = b"".join(bytes(one) + bytes(-len(one) % 8) for one in found)
    assert len(table) <= image.cluster
    image.bytes[image.snapshots : image.snapshots + len(table)] = table


def short_extra(image, length):
    found = entries(image)
    found[1] = (
        found[1][:36] + struct.pack(">I", length) + found[1][40 : 40 + length] + found[1][64:]
    )
    store(image, found)


def long_extra(image, length):
    found = entries(image)
    found[0] = (
        found[0][:36]
        + struct.pack(">I", length)
        + found[0][40:64]
        + b"x" * (length - 24)
        + found[0][64:]
    )
    store(image, found)
