"""Writes redologs of Bochs, also such that lie."""
import struct
from pathlib import Path

FREE = 0xFFFFFFFF


def redolog(
    name,
    subtype=b"Growing",
    version=0x20000,
    size=1 << 20,
    extents=None,
    catalog=64,
    extent=16384,
    bitmap=4,
    header=512,
):
    """EXTENTS: for an extent of the disk its number in the file and a map from sectors to their bytes."""
    head = struct.pack(
        "<32s16s16sIIIII",
        b"Bochs Virtual HD Image",
        b"Redolog",
        subtype,
        version,
        header,
        catalog,
        bitmap,
        extent,
    )
    head += struct.pack("<IQ", 0, size) if version == 0x20000 else struct.pack("<Q", size)
    table = [FREE] * catalog
    room = (bitmap + 511) // 512 * 512
    data = bytearray((room + extent) * len(extents or {}))
    for place, (number, sectors) in (extents or {}).items():
        table[place] = number
        begin = number * (room + extent)
        for sector, value in sectors.items():
            data[begin + sector // 8] |= 1 << sector % 8
            data[begin + room + sector * 512 : begin + room + sector * 512 + 512] = (
                bytes([value]) * 512
            )
    Path(name).write_bytes(head.ljust(header, b"\0") + struct.pack(f"<{catalog}I", *table) + data)
    return name
