"""Writes Apple disk images of every kind of chunk; the formats are those of docs/formats/dmg.md."""
import base64
import bz2
import lzma
import struct
import zlib

ZERO, RAW, IGNORE, COMMENT, END = 0, 1, 2, 0x7FFFFFFE, 0xFFFFFFFF
ADC, ZLIB, BZIP2, LZFSE, XZ = range(0x80000004, 0x80000009)
SECTOR = 512


def matches(data, longest, farthest, shortest=4):
    """DATA as (literals, match length, distance); the last one may have no match."""
    seen, at, begin = {}, 0, 0
    while at + shortest <= len(data):
        key = data[at : at + shortest]
        before, seen[key] = seen.get(key), at
        if before is None or at - before > farthest:
            at += 1
            continue
        length = shortest
        while (
            length < longest
            and at + length < len(data)
            and data[before + length] == data[at + length]
        ):
            length += 1
        yield data[begin:at], length, at - before
        at += length
        begin = at
    if begin < len(data):
        yield data[begin:], 0, 0


def adc(data):
    out = bytearray()
    for literals, length, distance in matches(data, 67, 65536):
        for at in range(0, len(literals), 128):
            part = literals[at : at + 128]
            out += bytes([0x80 | len(part) - 1]) + part
        if not length:
            continue
        if length <= 18 and distance <= 1024:
            out += struct.pack(">H", length - 3 << 10 | distance - 1)
        else:
            out += struct.pack(">BH", 0x40 | length - 4, distance - 1)
    return bytes(out)


def lzvn(data):
    """One "bvxn" block."""
    out = bytearray()
    before = 0
    for literals, length, distance in matches(data, 271, 65535):
        while len(literals) > 3 or literals and not length:
            part = literals[:271]
            out += (
                bytes([0xE0, len(part) - 16]) if len(part) > 15 else bytes([0xE0 | len(part)])
            ) + part
            literals = literals[len(part) :]
        if not length:
            continue
        short = min(length, (10, 8, 6, 4)[len(literals)])  # longer ones are other codes
        head = len(literals) << 6 | short - 3 << 3
        if distance == before and literals:
            out += bytes([head | 6]) + literals
        elif distance < 1536:
            out += bytes([head | distance >> 8, distance & 255]) + literals
        elif distance < 16384 and length <= 34:
            short = length
            out += (
                bytes([0xA0 | len(literals) << 3 | short - 3 >> 2])
                + struct.pack("<H", distance << 2 | short - 3 & 3)
                + literals
            )
        else:
            out += bytes([head | 7]) + struct.pack("<H", distance) + literals
        rest = length - short
        while rest:
            part = min(rest, 271)
            out += bytes([0xF0, part - 16]) if part > 15 else bytes([0xF0 | part])
            rest -= part
        before = distance
    out += bytes([0x0E, 6, 0, 0, 0, 0, 0, 0, 0])
    return b"bvxn" + struct.pack("<II", len(data), len(out)) + bytes(out)


def bases(extra):
    out = [0]
    for bits in extra[:-1]:
        out.append(out[-1] + (1 << bits))
    return out


LENGTH_EXTRA = [0] * 16 + [2, 3, 5, 8]
MATCH_EXTRA = [0] * 16 + [3, 5, 8, 11]
DISTANCE_EXTRA = [i // 4 for i in range(64)]


def symbol_of(value, extra):
    base = bases(extra)
    symbol = max(i for i in range(len(base)) if base[i] <= value)
    return symbol, value - base[symbol]


def scaled(counts, states):
    """COUNTS in the same proportion, with STATES as their sum and none of them lost."""
    total = sum(counts)
    if total == 0:
        return counts
    out = [max(1, count * states // total) if count else 0 for count in counts]
    while sum(out) != states:
        largest = out.index(max(out))
        out[largest] += 1 if sum(out) < states else -1
    return out


class Backwards:
    """Bits that are read from the last one on."""

    def __init__(self):
        self.value, self.bits = 0, 0

    def push(self, value, bits):
        self.value |= value << self.bits
        self.bits += bits

    def bytes(self):
        return self.value.to_bytes(-(-self.bits // 8), "little"), self.bits - 8 * -(-self.bits // 8)


class Coder:
    """The states of an entropy coder, from its end to its beginning."""

    def __init__(self, counts, states):
        self.state, self.steps = 0, {}
        first = 0
        for symbol, count in enumerate(counts):
            if not count:
                continue
            bits = 0
            while count << bits < states:
                bits += 1
            longer = (2 * states >> bits) - count
            self.steps[symbol] = [
                (((count + i) << bits) - states, bits, first + i)
                if i < longer
                else ((i - longer) << bits - 1, bits - 1, first + i)
                for i in range(count)
            ]
            first += count

    def push(self, symbol, out):
        base, bits, state = next(
            step for step in self.steps[symbol] if step[0] <= self.state < step[0] + (1 << step[1])
        )
        out.push(self.state - base, bits)
        self.state = state


def packed_counts(counts):
    value, at = 0, 0
    for count in counts:
        for least, most, bits, low, shift in (
            (0, 1, 2, 0, 1),
            (2, 3, 3, 1, 2),
            (4, 7, 5, 3, 3),
            (8, 23, 8, 7, 4),
            (24, 1047, 14, 15, 4),
        ):
            if least <= count <= most:
                value |= (low | count - least << shift) << at
                at += bits
                break
    return value.to_bytes(-(-at // 8), "little")


def entropy_block(data, plain_tables=False):
    """One "bvx2" (or "bvx1") block of at most 40000 bytes."""
    triplets, literals, before = [], b"", 0
    for run, length, distance in matches(data, 2359, 262139):
        while len(run) > 315:
            triplets.append((315, 0, 0))
            literals, run = literals + run[:315], run[315:]
        triplets.append((len(run), length, 0 if distance == before else distance))
        literals += run
        before = distance or before
    literals += bytes(-len(literals) % 4)
    symbols = [
        (
            symbol_of(length, LENGTH_EXTRA),
            symbol_of(match, MATCH_EXTRA),
            symbol_of(distance, DISTANCE_EXTRA),
        )
        for length, match, distance in triplets
    ]
    tables = [
        scaled([sum(one[i][0] == s for one in symbols) for s in range(n)], states)
        for i, (n, states) in enumerate(((20, 64), (20, 64), (64, 256)))
    ]
    tables.append(scaled([literals.count(s) for s in range(256)], 1024))
    coders = [Coder(tables[i], states) for i, states in enumerate((64, 64, 256))]
    bits = Backwards()
    for one in reversed(symbols):
        for i, extra in ((2, DISTANCE_EXTRA), (1, MATCH_EXTRA), (0, LENGTH_EXTRA)):
            bits.push(one[i][1], extra[one[i][0]])
            coders[i].push(one[i][0], bits)
    triplet_payload, triplet_bits = bits.bytes()
    states = [Coder(tables[3], 1024) for _ in range(4)]
    bits = Backwards()
    for i in reversed(range(len(literals))):
        states[i % 4].push(literals[i], bits)
    literal_payload, literal_bits = bits.bytes()
    payload = literal_payload + triplet_payload
    if plain_tables:
        return (
            b"bvx1"
            + struct.pack(
                "<6Ii4Hi3H",
                len(data),
                len(payload),
                len(literals),
                len(triplets),
                len(literal_payload),
                len(triplet_payload),
                literal_bits,
                *[one.state for one in states],
                triplet_bits,
                *[one.state for one in coders],
            )
            + struct.pack("<360H", *[count for table in tables for count in table])
            + bytes(2)
            + payload
        )
    counts = packed_counts([count for table in tables for count in table])
    words = (
        len(literals) | len(literal_payload) << 20 | len(triplets) << 40 | literal_bits + 7 << 60,
        sum(one.state << 10 * i for i, one in enumerate(states))
        | len(triplet_payload) << 40
        | triplet_bits + 7 << 60,
        32 + len(counts) | sum(one.state << 32 + 10 * i for i, one in enumerate(coders)),
    )
    return b"bvx2" + struct.pack("<I3Q", len(data), *words) + counts + payload


def plain_block(data):
    return b"bvx-" + struct.pack("<I", len(data)) + data


def lzfse(data):
    """A stream of all kinds of blocks."""
    out, kind = b"", 0
    for at in range(0, len(data), 12000):
        part = data[at : at + 12000]
        out += (entropy_block(part), lzvn(part), plain_block(part), entropy_block(part, True))[
            kind % 4
        ]
        kind += 1
    return out + b"bvx$"


ENCODE = {
    RAW: bytes,
    ADC: adc,
    ZLIB: zlib.compress,
    BZIP2: bz2.compress,
    LZFSE: lzfse,
    XZ: lzma.compress,
}


def table(first, chunks, data_start=0, crc=0, claimed=None):
    """A "mish" table. CHUNKS: (type, sector, sectors, offset, length)."""
    count = len(chunks) if claimed is None else claimed
    sectors = max((sector + number for _, sector, number, _, _ in chunks), default=0)
    return (
        b"mish"
        + struct.pack(">IQQQII24x", 1, first, min(sectors, 2**63), data_start, 2056, 0)
        + struct.pack(">III124x", 2, 32, crc)
        + struct.pack(">I", count)
        + b"".join(struct.pack(">IIQQQQ", kind, 0, *rest) for kind, *rest in chunks)
    )


def property_list(tables):
    rows = "".join(
        f"""\t\t\t<dict>
\t\t\t\t<key>Attributes</key>
\t\t\t\t<string>0x0050</string>
\t\t\t\t<key>CFName</key>
\t\t\t\t<string>part {i}</string>
\t\t\t\t<key>Data</key>
\t\t\t\t<data>
{chr(10).join(chr(9) * 4 + base64.b64encode(one[at:at + 39]).decode() for at in range(0, len(one), 39))}
\t\t\t\t</data>
\t\t\t\t<key>ID</key>
\t\t\t\t<string>{i}</string>
\t\t\t\t<key>Name</key>
\t\t\t\t<string>part {i}</string>
\t\t\t</dict>
"""
        for i, one in enumerate(tables)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE plist PUBLIC "-//Apple Computer//DTD PLIST 1.0//EN" '
        '"http://www.apple.com/DTDs/PropertyList-1.0.dtd">\n<plist version="1.0">\n<dict>\n\t<key>resource-fork</key>\n'
        f"\t<dict>\n\t\t<key>blkx</key>\n\t\t<array>\n{rows}\t\t</array>\n\t</dict>\n</dict>\n</plist>\n"
    ).encode()


def resource_fork(tables):
    data = b"".join(struct.pack(">I", len(one)) + one for one in [b"something else", *tables])
    return struct.pack(">IIII", 256, 256 + len(data), len(data), 30) + bytes(240) + data + bytes(30)


def trailer(sectors, fork=(0, 0, 0), resources=(0, 0), plist=(0, 0), crc=0, segments=1):
    """The 512 bytes at the end; FORK: running offset, offset and length of the data fork."""
    return (
        b"koly"
        + struct.pack(">III", 4, 512, 1)
        + struct.pack(">QQQ", *fork)
        + struct.pack(">QQ", *resources)
        + struct.pack(">II16x", 1, segments)
        + bytes(136)
        + struct.pack(">QQ120x", *plist)
        + struct.pack(">III124x", 2, 32, crc)
        + struct.pack(">IQ12x", 1, sectors)
    )


def image(parts, resources=False, shift=0, data_start=0):
    """A whole image and the disk it describes. PARTS: for each table its first sector and its chunks, which are a type and
    plain bytes (or a number of sectors of zeroes). SHIFT: bytes before the data fork."""
    body, disk, tables, sums = bytes(data_start), {}, [], b""
    end = 0
    for first, chunks in parts:
        at, rows, crc = 0, [], 0
        for kind, data in chunks:
            if kind == COMMENT:
                rows.append((kind, at, 0, 0, 0))
                continue
            zero = kind in (ZERO, IGNORE)
            count = data if zero else len(data) // SECTOR
            stored = b"" if zero else ENCODE[kind](data)
            rows.append((kind, at, count, len(body) - data_start, len(stored)))
            if not zero:
                disk[first + at] = data
            if kind != IGNORE:
                crc = zlib.crc32(bytes(count * SECTOR) if zero else data, crc)
            body += stored
            at += count
        rows.append((END, at, 0, len(body), 0))
        end = max(end, first + at)
        tables.append(table(first, rows, data_start, crc))
        sums += struct.pack(">I", crc)
    plain = bytearray(end * SECTOR)
    for sector, data in disk.items():
        plain[sector * SECTOR : sector * SECTOR + len(data)] = data
    tail = resource_fork(tables) if resources else property_list(tables)
    place = (shift + len(body), len(tail))
    none = (0, 0)
    return (
        bytes(shift)
        + body
        + tail
        + trailer(
            end,
            (0, shift, len(body)),
            place if resources else none,
            none if resources else place,
            zlib.crc32(sums),
        ),
        bytes(plain),
    )
