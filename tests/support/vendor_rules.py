"""The rules that the makers of VMDK, VHD, VHDX and VDI published, as a checker that knows nothing of Cairn's code.

Every rule has a name, which docs/formats/vendor-rules.md lists with its source.
"""
import re
import struct
import uuid
import zlib

RULES = {}
SECTOR, MIB = 512, 1 << 20


def rule(fmt, name):
    def add(function):
        RULES.setdefault(fmt, {})[name] = function
        return function

    return add


def broken(fmt, image):
    """The names of the rules that an image breaks."""
    result = []
    for name, function in RULES[fmt].items():
        try:
            good = function(image)
        except (struct.error, IndexError, zlib.error, AttributeError):
            good = False
        if not good:
            result.append(name)
    return result


def disjoint(places):
    """No two of (begin, bytes) overlap."""
    places = sorted(places)
    return all(a[0] + a[1] <= b[0] for a, b in zip(places, places[1:]))


# --- VMDK: VMware, "Virtual Disk Format 5.0" ---


class Vmdk:
    """A hosted sparse extent with its descriptor."""

    def __init__(self, path):
        self.bytes = open(path, "rb").read()
        self.end = len(self.bytes)
        self.head = self.header(0)
        self.stream = self.head["gd"] == (1 << 64) - 1
        self.last = self.header(self.end - 1024) if self.stream else self.head
        at = self.head["descriptor"] * SECTOR
        self.text = (
            self.bytes[at : at + self.head["descriptor_size"] * SECTOR].split(b"\0")[0].decode()
        )

    def header(self, at):
        names = [
            "magic",
            "version",
            "flags",
            "capacity",
            "grain",
            "descriptor",
            "descriptor_size",
            "entries",
            "rgd",
            "gd",
            "overhead",
            "unclean",
            "newlines",
            "compression",
        ]
        return dict(zip(names, struct.unpack_from("<4sIIQQQQIQQQB4sH", self.bytes, at)))

    def words(self, at, count):
        return struct.unpack_from(f"<{count}I", self.bytes, at)

    def tables(self, directory):
        count = -(-self.head["capacity"] // (self.head["grain"] * 512))
        return self.words(directory * SECTOR, count)

    def entries(self, directory):
        """(grain, sector) of what is there."""
        for number, table in enumerate(self.tables(directory)):
            for i, sector in enumerate(self.words(table * SECTOR, 512) if table else []):
                if sector > 1:
                    yield number * 512 + i, sector

    def markers(self):
        """(place, value, size, type) of everything behind the header of a stream."""
        at = self.head["overhead"] * SECTOR
        while at < self.end:
            value, size, kind = struct.unpack_from("<QII", self.bytes, at)
            kind = None if size else kind
            yield at, value, size, kind
            at += -(-(12 + size) // SECTOR) * SECTOR if size else (1 + value) * SECTOR


@rule("vmdk", "vmdk-header")
def _(image):
    head = image.head
    return (
        head["magic"] == b"KDMV"
        and head["version"] in (1, 2, 3)
        and head["newlines"] == b"\n \r\n"
        and head["flags"] & 1
        and head["grain"] > 8
        and head["grain"] & (head["grain"] - 1) == 0
        and head["entries"] == 512
    )


@rule("vmdk", "vmdk-version")
def _(image):
    """1; 2 where grains may be marked as zeroes; 3 for streams."""
    return image.head["version"] == (
        3 if image.head["flags"] >> 16 else 2 if image.head["flags"] & 4 else 1
    )


@rule("vmdk", "vmdk-overhead")
def _(image):
    return image.head["overhead"] * SECTOR <= image.end and all(
        sector >= image.head["overhead"] for _, sector in image.entries(image.last["gd"])
    )


@rule("vmdk", "vmdk-redundant")
def _(image):
    if not image.head["flags"] & 2:
        return image.head["rgd"] == 0
    return list(image.entries(image.head["gd"])) == list(image.entries(image.head["rgd"]))


@rule("vmdk", "vmdk-grains")
def _(image):
    """Inside of the file, each at its own place."""
    found = [sector * SECTOR for _, sector in image.entries(image.last["gd"])]
    size = image.head["grain"] * SECTOR if not image.stream else SECTOR
    return disjoint([(at, size) for at in found]) and all(at + size <= image.end for at in found)


@rule("vmdk", "vmdk-clean")
def _(image):
    return image.head["unclean"] == 0


@rule("vmdk", "vmdk-descriptor")
def _(image):
    lines = image.text.splitlines()
    want = [
        r"version=1",
        r"CID=[0-9a-f]{8}",
        r"parentCID=[0-9a-f]{8}",
        r'createType="\w+"',
        r'RW \d+ SPARSE "[^"/]+"',
        r'ddb\.adapterType = "\w+"',
        r'ddb\.geometry\.cylinders = "\d+"',
        r'ddb\.geometry\.heads = "(16|255)"',
        r'ddb\.geometry\.sectors = "63"',
        r'ddb\.virtualHWVersion = "\d+"',
    ]
    return lines[0] == "# Disk DescriptorFile" and all(
        any(re.fullmatch(one, line) for line in lines) for one in want
    )


@rule("vmdk", "vmdk-extent-size")
def _(image):
    return int(re.search(r"RW (\d+) SPARSE", image.text)[1]) == image.head["capacity"]


@rule("vmdk", "stream-header")
def _(image):
    if not image.stream:
        return True
    same = {key: value for key, value in image.last.items() if key != "gd"} == {
        key: value for key, value in image.head.items() if key != "gd"
    }
    return (
        image.head["flags"] & 0x30000 == 0x30000
        and image.head["compression"] == 1
        and same
        and 'createType="streamOptimized"' in image.text
    )


@rule("vmdk", "stream-markers")
def _(image):
    """Grains in the order of the disk, tables, the directory, the footer, the end: and nothing behind it."""
    if not image.stream:
        return True
    found = list(image.markers())
    kinds = [kind for *_, kind in found]
    grains = [value for _, value, size, _ in found if size]
    return (
        kinds[-3:] == [2, 3, 0]
        and set(kinds[:-3]) <= {None, 1}
        and grains == sorted(set(grains))
        and all(value % image.head["grain"] == 0 for value in grains)
        and all(value == 4 for _, value, _, kind in found if kind == 1)
        and found[-1][0] == image.end - SECTOR
    )


@rule("vmdk", "stream-tables")
def _(image):
    """Entries point to the marker of their grain, tables stand behind a marker, and every grain is a whole one."""
    if not image.stream:
        return True
    found = {at: (value, size, kind) for at, value, size, kind in image.markers()}
    tables = [table for table in image.tables(image.last["gd"]) if table]
    entries = dict(image.entries(image.last["gd"]))
    return (
        all(found[table * SECTOR - SECTOR][2] == 1 for table in tables)
        and found[image.last["gd"] * SECTOR - SECTOR][2] == 2
        and all(found[sector * SECTOR][0] == grain * 128 for grain, sector in entries.items())
        and len(entries) == sum(1 for _, size, _ in found.values() if size)
        and all(
            len(zlib.decompress(image.bytes[at + 12 : at + 12 + size])) == 65536
            for at, (_, size, _) in found.items()
            if size
        )
    )


# --- VHD: Microsoft, "Virtual Hard Disk Image Format Specification" ---


class Vhd:
    def __init__(self, path):
        self.bytes = open(path, "rb").read()
        self.end = len(self.bytes) - 512
        self.footer = self.bytes[self.end :]
        self.kind = self.number(self.end + 60)
        self.size = self.number(self.end + 48, "Q")
        self.at = self.number(self.end + 16, "Q")

    def number(self, at, kind="I"):
        return struct.unpack_from(">" + kind, self.bytes, at)[0]

    def sum(self, begin, length, field):
        part = self.bytes[begin : begin + length]
        return ~(sum(part) - sum(part[field : field + 4])) & 0xFFFFFFFF

    def blocks(self):
        table, count = self.number(self.at + 16, "Q"), self.number(self.at + 28)
        return [
            entry
            for entry in struct.unpack_from(f">{count}I", self.bytes, table)
            if entry != 0xFFFFFFFF
        ]


def geometry(sectors):
    """The calculation of the specification's appendix."""
    sectors = min(sectors, 65535 * 16 * 255)
    if sectors >= 65535 * 16 * 63:
        heads, track = 16, 255
        cylinders = sectors // track // heads
    else:
        track = 17
        tracks = sectors // track
        heads = max(4, (tracks + 1023) // 1024)
        if tracks >= heads * 1024 or heads > 16:
            track, heads = 31, 16
            tracks = sectors // track
        if tracks >= heads * 1024:
            track, heads = 63, 16
            tracks = sectors // track
        cylinders = tracks // heads
    return cylinders, heads, track


@rule("vpc", "vhd-footer")
def _(image):
    end = image.end
    return (
        image.footer[:8] == b"conectix"
        and image.number(end + 8) & 2
        and image.number(end + 12) == 0x10000
        and image.kind in (2, 3, 4)
        and image.number(end + 64) == image.sum(end, 512, 64)
        and image.footer[84] == 0
        and any(image.footer[68:84])
    )


@rule("vpc", "vhd-geometry")
def _(image):
    found = struct.unpack_from(">HBB", image.footer, 56)
    # Images that go by their size say so with the largest one there is.
    return (
        found == (65535, 16, 255)
        or found == geometry(image.size // 512)
        or found[0] * found[1] * found[2] == image.size // 512
    )


@rule("vpc", "vhd-fixed")
def _(image):
    return image.kind != 2 or (image.at == (1 << 64) - 1 and image.size == image.end)


@rule("vpc", "vhd-copy")
def _(image):
    return image.kind == 2 or image.bytes[:512] == image.footer


@rule("vpc", "vhd-header")
def _(image):
    if image.kind == 2:
        return True
    at, block = image.at, image.number(image.at + 32)
    return (
        image.bytes[at : at + 8] == b"cxsparse"
        and image.number(at + 8, "Q") == (1 << 64) - 1
        and image.number(at + 24) == 0x10000
        and block & (block - 1) == 0
        and image.number(at + 28) == -(-image.size // block)
        and image.number(at + 36) == image.sum(at, 1024, 36)
    )


@rule("vpc", "vhd-table")
def _(image):
    """At a sector's start, filled up with ones; it and the blocks with their bitmaps lie apart, in front of the footer."""
    if image.kind == 2:
        return True
    table, count, block = (
        image.number(image.at + 16, "Q"),
        image.number(image.at + 28),
        image.number(image.at + 32),
    )
    end = (table + count * 4 + 511) // 512 * 512
    whole = 512 + block
    places = [
        (0, 512),
        (image.at, 1024),
        (table, end - table),
        *((entry * 512, whole) for entry in image.blocks()),
    ]
    return (
        table % 512 == 0
        and set(image.bytes[table + count * 4 : end]) <= {0xFF}
        and disjoint(places)
        and all(at + length <= image.end for at, length in places)
    )


@rule("vpc", "vhd-bitmaps")
def _(image):
    """A dynamic image's block is there as a whole."""
    return image.kind != 3 or all(
        set(image.bytes[entry * 512 : entry * 512 + 512]) == {0xFF} for entry in image.blocks()
    )


@rule("vpc", "vhd-locators")
def _(image):
    """Inside of the file and outside of everything else, for children; none for others."""
    if image.kind == 2:
        return True
    found = [struct.unpack_from(">4sIIIQ", image.bytes, image.at + 576 + 24 * i) for i in range(8)]
    used = [one for one in found if one[2]]
    if image.kind == 3:
        return not used and not any(image.bytes[image.at + 40 : image.at + 56])
    places = [(at, -(-length // 512) * 512) for _, _, length, _, at in used]
    table = image.number(image.at + 16, "Q")
    return (
        {one[0] for one in used} == {b"W2ru", b"W2ku"}
        and disjoint([*places, (0, 512), (image.at, 1024), (table, 512)])
        and any(image.bytes[image.at + 40 : image.at + 56])
    )


# --- VHDX: Microsoft, [MS-VHDX] ---

CRC = []
for byte in range(256):
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    CRC.append(byte)


def crc32c(data):
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ CRC[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def guid(text):
    return uuid.UUID(text).bytes_le


BAT, METADATA = guid("2DC27766-F623-4200-9D64-115E9BFD4A08"), guid(
    "8B7CA206-4790-4B9A-B8FE-575F050F886E"
)
ITEMS = {
    "parameters": "CAA16737-FA36-4D43-B3B6-33F0AA44E76B",
    "size": "2FA54224-CD1B-4876-B211-5DBED83BF4B8",
    "page83": "BECA12AB-B2E6-4523-93EF-C309E000C746",
    "logical": "8141BF1D-A96F-4709-BA47-F233A8FAAB5F",
    "physical": "CDA348C7-445D-4471-9CC9-E9885251C556",
}


class Vhdx:
    def __init__(self, path):
        self.bytes = open(path, "rb").read()
        count = self.number(192 * 1024 + 8)
        self.regions = {
            self.bytes[at : at + 16]: (self.number(at + 16, "Q"), self.number(at + 24))
            for at in range(192 * 1024 + 16, 192 * 1024 + 16 + 32 * count, 32)
        }
        self.meta = self.regions[METADATA][0]
        self.items = {
            self.bytes[at : at + 16]: (
                self.number(at + 16),
                self.number(at + 20),
                self.number(at + 24),
            )
            for at in range(
                self.meta + 32, self.meta + 32 + 32 * self.number(self.meta + 10, "H"), 32
            )
        }
        self.block = self.item("parameters")
        self.size = self.item("size", "Q")

    def number(self, at, kind="I"):
        return struct.unpack_from("<" + kind, self.bytes, at)[0]

    def item(self, name, kind="I"):
        return self.number(self.meta + self.items[guid(ITEMS[name])][0], kind)

    def sum(self, at, length):
        return self.number(at + 4) == crc32c(
            self.bytes[at : at + 4] + bytes(4) + self.bytes[at + 8 : at + length]
        )

    def entries(self):
        """(index, is a bitmap's, state, offset)."""
        chunk = (1 << 23) * self.item("logical") // self.block
        blocks = -(-self.size // self.block)
        count = blocks + (blocks - 1) // chunk
        for i, value in enumerate(
            struct.unpack_from(f"<{count}Q", self.bytes, self.regions[BAT][0])
        ):
            yield i, i % (chunk + 1) == chunk, value & 7, value >> 20 << 20


@rule("vhdx", "vhdx-identifier")
def _(image):
    return image.bytes[:8] == b"vhdxfile"


@rule("vhdx", "vhdx-headers")
def _(image):
    places = [64 * 1024, 128 * 1024]
    return (
        all(
            image.bytes[at : at + 4] == b"head"
            and image.sum(at, 4096)
            and image.number(at + 66, "H") == 1
            and image.number(at + 64, "H") == 0
            for at in places
        )
        and image.number(places[0] + 8, "Q") != image.number(places[1] + 8, "Q")
        and all(
            any(image.bytes[at + 16 : at + 32]) and any(image.bytes[at + 32 : at + 48])
            for at in places
        )
    )


@rule("vhdx", "vhdx-log")
def _(image):
    """Whole MiB at a whole MiB, and empty once the image is closed."""
    current = max((64 * 1024, 128 * 1024), key=lambda at: image.number(at + 8, "Q"))
    length, offset = image.number(current + 68), image.number(current + 72, "Q")
    return (
        length
        and length % MIB == 0
        and offset % MIB == 0
        and offset >= MIB
        and not any(image.bytes[current + 48 : current + 64])
    )


@rule("vhdx", "vhdx-regions")
def _(image):
    tables = [image.bytes[at : at + 65536] for at in (192 * 1024, 256 * 1024)]
    places = [(at, length) for at, length in image.regions.values()]
    return (
        tables[0] == tables[1]
        and tables[0][:4] == b"regi"
        and image.sum(192 * 1024, 65536)
        and set(image.regions) == {BAT, METADATA}
        and all(at % MIB == 0 and length % MIB == 0 and at >= MIB for at, length in places)
        and disjoint(places)
    )


@rule("vhdx", "vhdx-metadata")
def _(image):
    needed = [guid(one) for one in ITEMS.values()]
    return (
        image.bytes[image.meta : image.meta + 8] == b"metadata"
        and all(one in image.items and image.items[one][2] & 4 for one in needed)
        and all(offset >= 65536 for offset, _, _ in image.items.values())
        and disjoint([one[:2] for one in image.items.values()])
    )


@rule("vhdx", "vhdx-parameters")
def _(image):
    return (
        MIB <= image.block <= 256 * MIB
        and image.block & (image.block - 1) == 0
        and image.item("logical") in (512, 4096)
        and image.item("physical") in (512, 4096)
        and image.size % image.item("logical") == 0
        and 0 < image.size <= 64 << 40
    )


@rule("vhdx", "vhdx-blocks")
def _(image):
    """Whole MiB in nobody's way; places only where the state has one."""
    header = max((64 * 1024, 128 * 1024), key=lambda at: image.number(at + 8, "Q"))
    places = [*image.regions.values(), (image.number(header + 72, "Q"), image.number(header + 68))]
    for _, bitmap, state, offset in image.entries():
        if state not in ((0, 6) if bitmap else (0, 1, 2, 3, 6, 7)) or (state in (6, 7)) != (
            offset != 0
        ):
            return False
        if offset:
            places.append((offset, MIB if bitmap else image.block))
    return disjoint(places) and all(MIB <= at < len(image.bytes) for at, _ in places)


# --- VDI: VirtualBox's public headers ---


class Vdi:
    def __init__(self, path):
        self.bytes = open(path, "rb").read()
        self.map, self.data = self.number(340), self.number(344)
        self.count, self.allocated = self.number(384), self.number(388)
        self.entries = struct.unpack_from(f"<{self.count}I", self.bytes, self.map)
        self.used = [entry for entry in self.entries if entry < 0xFFFFFFFE]

    def number(self, at, kind="I"):
        return struct.unpack_from("<" + kind, self.bytes, at)[0]


@rule("vdi", "vdi-header")
def _(image):
    return (
        image.number(64) == 0xBEDA107F
        and image.number(68) == 0x10001
        and image.number(72) >= 384
        and image.number(76) in (1, 2)
        and image.number(360) == 512
        and image.number(376) == MIB
        and image.number(380) == 0
    )


@rule("vdi", "vdi-places")
def _(image):
    return (
        image.map % 512 == 0
        and image.data % 512 == 0
        and image.map >= 512
        and image.data >= image.map + image.count * 4
        and image.count == -(-image.number(368, "Q") // MIB)
    )


@rule("vdi", "vdi-map")
def _(image):
    """Every block of the file belongs to one of the disk, without gaps."""
    return (
        sorted(image.used) == list(range(image.allocated))
        and len(image.bytes) == image.data + image.allocated * MIB
    )


@rule("vdi", "vdi-static")
def _(image):
    return image.number(76) != 2 or image.allocated == image.count


@rule("vdi", "vdi-identity")
def _(image):
    return all(
        uuid.UUID(bytes_le=image.bytes[at : at + 16]).version == 4 for at in (392, 408)
    ) and not any(image.bytes[424:456])


READERS = {"vmdk": Vmdk, "vpc": Vhd, "vhdx": Vhdx, "vdi": Vdi}
