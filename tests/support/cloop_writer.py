"""Writes cloop images of every version and compression."""
import lzma
import random
import struct
import zlib

import lz4.block
import lzo

V2 = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"
FREEBSD = b"#!/bin/sh\n#V2.0 Format\nm=geom_uzip\n(kldstat -m $m 2>&-||kldload $m)>&-&&mount_cd9660 /dev/`mdconfig -af $0`.uzip $1\n"
ULZMA = b"#!/bin/sh\n#L3.0\nn=uncompress\nm=geom_$n\n"
V4 = b"#!/bin/sh\n#V4.0 Format\n"
ZLIB, STORED, XZ, LZ4, LZO = range(5)
ENCODE = {
    ZLIB: zlib.compress,
    STORED: bytes,
    XZ: lzma.compress,
    LZ4: lambda b: lz4.block.compress(b, store_size=False),
    LZO: lambda b: lzo.compress(b, 1, False),
}


def content(size, seed=3):
    """Text, noise and zeroes in turn, so that matches near and far occur."""
    source = random.Random(seed)
    out = bytearray()
    while len(out) < size:
        kind = source.randrange(4)
        length = source.choice([40, 700, 5000, 30000])
        if kind == 0:
            out += source.randbytes(length)
        elif kind == 1:
            out += bytes(length)
        elif kind == 2:
            out += (b"line %d of some text; " % source.randrange(9) * length)[:length]
        elif out:
            at = source.randrange(len(out))
            out += out[at : at + length]
    return bytes(out[:size])


def write(name, data, block, preamble=V2, flags=(ZLIB,), last=False, hollow=False):
    """Writes DATA as blocks of BLOCK bytes, compressed as FLAGS say in turn; LAST: V4's header at the end."""
    data += bytes(-len(data) % block)
    count = len(data) // block
    start = 0 if last else 136 + 8 * (count + 1)
    table, body = [], b""
    for i in range(count):
        plain, flag = data[i * block : (i + 1) * block], flags[i % len(flags)]
        table.append((flag << 60 if len(flags) > 1 else 0) | start + len(body))
        if not (hollow and not any(plain)):
            body += ENCODE[flag](plain)
    table.append(start + len(body))
    header = preamble.ljust(128, b"\0") + struct.pack(">II", block, count)
    index = struct.pack(f">{count + 1}Q", *table)
    with open(name, "wb") as out:
        out.write(body + index + header if last else header + index + body)
    return data
