"""Writes files of other programs, of the kinds that people reported; all content is synthetic."""
import struct
import uuid

MIB = 1 << 20


def pattern(size, step=65536):
    """A disk whose 64 KiB blocks carry their own number, every third one zero: a lost block shows."""
    return b"".join(bytes(step) if i % 3 == 2 else struct.pack("<I", 0xC0DE0000 | i) * (step // 4)
                    for i in range(size // step))


def vdi(disk, kind=1, parent=None, present=None, zero=(), ids=None):
    """VirtualBox's image, and its identifiers. `present`: the blocks that are stored; `zero`: those marked as zeroes."""
    blocks = len(disk) // MIB
    present = list(range(blocks) if present is None else present)
    ids = ids or (uuid.uuid4().bytes, uuid.uuid4().bytes)
    header = bytearray(MIB)
    header[:40] = b"<<< Oracle VM VirtualBox Disk Image >>>\n"
    struct.pack_into("<IIIII", header, 64, 0xBEDA107F, 0x00010001, 400, kind, 0)
    struct.pack_into("<IIIIIII", header, 340, 512, MIB, 0, 0, 0, 512, 0)
    struct.pack_into("<QIIII", header, 368, len(disk), MIB, 0, blocks, len(present))
    header[392:424] = ids[0] + ids[1]
    if parent:
        header[424:456] = parent[0] + parent[1]
    table = [0xFFFFFFFE if i in zero else 0xFFFFFFFF for i in range(blocks)]
    for place, block in enumerate(present):
        table[block] = place
    struct.pack_into(f"<{blocks}I", header, 512, *table)
    return bytes(header) + b"".join(disk[i * MIB:(i + 1) * MIB] for i in present), ids


def vbox_snapshot(base="base.vdi", child="snapshot.vdi"):
    """A base and a snapshot of it: block 1 stored, block 3 marked as zeroes. Gives what the guest sees."""
    disk = pattern(4 * MIB)
    image, ids = vdi(disk)
    with open(base, "wb") as out:
        out.write(image)
    seen = bytearray(disk)
    seen[MIB:2 * MIB] = b"\x22" * MIB
    seen[3 * MIB:4 * MIB] = bytes(MIB)
    with open(child, "wb") as out:
        out.write(vdi(bytes(seen), kind=4, parent=ids, present=[1], zero=[3])[0])
    return bytes(seen)


def apple_map(size=8 * MIB, block=512, entries=None):
    """An Apple partition map; `HFS!` at the start of partition 2."""
    disk = bytearray(size)
    count = size // block
    struct.pack_into(">2sHI", disk, 0, b"ER", block, count)
    entries = entries or [(1, 63, b"Apple", b"Apple_partition_map"), (64, 8192 * 512 // block, b"disk image", b"Apple_HFS"),
                          (64 + 8192 * 512 // block, 64, b"", b"Apple_Free")]
    for i, (start, length, name, kind) in enumerate(entries):
        struct.pack_into(">2sHIII32s32sII", disk, block * (i + 1), b"PM", 0, len(entries), start, length, name, kind, 0, length)
    disk[64 * block:64 * block + 4] = b"HFS!"
    return disk


def old_luks(image):
    """IMAGE, a LUKS1 header with keys of 16 bytes, as cryptsetup before 1.1 wrote it: the first key slot in sector 2."""
    image = bytearray(image)
    length = 125 * 512  # 4000 stripes of 16 bytes
    at = struct.unpack_from(">I", image, 208 + 40)[0] * 512
    key = image[at:at + length]
    image[at:at + length] = bytes(length)
    image[1024:1024 + length] = key
    struct.pack_into(">I", image, 208 + 40, 2)
    return bytes(image)
