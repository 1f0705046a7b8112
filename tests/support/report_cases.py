"""Writes files of other programs, of the kinds that people reported; all content is synthetic."""
import struct
import uuid

MIB = 1 << 20


def pattern(size, step=65536):
    """A disk whose 64 KiB blocks carry their own number, every third one zero: a lost block shows."""
    return b"".join(
        bytes(step) if i % 3 == 2 else struct.pack("<I", 0xC0DE0000 | i) * (step // 4)
        for i in range(size // step)
    )


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
    return bytes(header) + b"".join(disk[i * MIB : (i + 1) * MIB] for i in present), ids


def vbox_snapshot(base="base.vdi", child="snapshot.vdi"):
    """A base and a snapshot of it: block 1 stored, block 3 marked as zeroes. Gives what the guest sees."""
    disk = pattern(4 * MIB)
    image, ids = vdi(disk)
    with open(base, "wb") as out:
        out.write(image)
    seen = bytearray(disk)
    seen[MIB : 2 * MIB] = b"\x22" * MIB
    seen[3 * MIB : 4 * MIB] = bytes(MIB)
    with open(child, "wb") as out:
        out.write(vdi(bytes(seen), kind=4, parent=ids, present=[1], zero=[3])[0])
    return bytes(seen)


def apple_map(size=8 * MIB, block=512, entries=None):
    """An Apple partition map; `HFS!` at the start of partition 2."""
    disk = bytearray(size)
    count = size // block
    struct.pack_into(">2sHI", disk, 0, b"ER", block, count)
    entries = entries or [
        (1, 63, b"Apple", b"Apple_partition_map"),
        (64, 8192 * 512 // block, b"disk image", b"Apple_HFS"),
        (64 + 8192 * 512 // block, 64, b"", b"Apple_Free"),
    ]
    for i, (start, length, name, kind) in enumerate(entries):
        struct.pack_into(
            ">2sHIII32s32sII",
            disk,
            block * (i + 1),
            b"PM",
            0,
            len(entries),
            start,
            length,
            name,
            kind,
            0,
            length,
        )
    disk[64 * block : 64 * block + 4] = b"HFS!"
    return disk


def old_luks(image):
    """IMAGE, a LUKS1 header with keys of 16 bytes, as cryptsetup before 1.1 wrote it: the first key slot in sector 2."""
    image = bytearray(image)
    length = 125 * 512  # 4000 stripes of 16 bytes
    at = struct.unpack_from(">I", image, 208 + 40)[0] * 512
    key = image[at : at + length]
    image[at : at + length] = bytes(length)
    image[1024 : 1024 + length] = key
    struct.pack_into(">I", image, 208 + 40, 2)
    return bytes(image)


GUID = "{5fbaabe3-6958-40ff-92a7-860e329aab41}"


def parallels(disk, cluster=MIB):
    """A Parallels image of the second kind that stores what is not zero."""
    count = len(disk) // cluster
    blocks = [disk[i * cluster : (i + 1) * cluster] for i in range(count)]
    stored = [block for block in blocks if any(block)]
    places = iter(range(1, len(stored) + 1))
    table = [next(places) if any(block) else 0 for block in blocks]
    header = struct.pack(
        "<16sIIIIIQIIIQ",
        b"WithouFreSpacExt",
        2,
        16,
        16,
        cluster // 512,
        count,
        len(disk) // 512,
        0,
        cluster // 512,
        0,
        0,
    )
    return (header.ljust(64, b"\0") + struct.pack(f"<{count}I", *table)).ljust(
        cluster, b"\0"
    ) + b"".join(stored)


def split_bundle(folder, disk, ends, plain=False, shuffled=False):
    """A directory of Parallels whose disk is split into pieces that end at the sectors ENDS."""
    folder.mkdir()
    parts, start = [], 0
    for i, end in enumerate(ends):
        name = f"disk.hdd.{i}.{GUID}.hds"
        piece = disk[start * 512 : end * 512]
        (folder / name).write_bytes(piece if plain else parallels(piece))
        parts.append(
            f"<Storage><Start>{start}</Start><End>{end}</End><Blocksize>2048</Blocksize><Image><GUID>{GUID}</GUID>"
            f"<Type>{'Plain' if plain else 'Compressed'}</Type><File>{name}</File></Image></Storage>"
        )
        start = end
    (folder / "DiskDescriptor.xml").write_text(
        f"<?xml version='1.0' encoding='UTF-8'?><Parallels_disk_image Version='1.0'><Disk_Parameters><Disk_size>{len(disk) // 512}"
        "</Disk_size><Cylinders>16</Cylinders><Heads>16</Heads><Sectors>32</Sectors><Padding>0</Padding></Disk_Parameters><StorageData>"
        + "".join(parts[::-1] if shuffled else parts)
        + f"</StorageData><Snapshots><Shot><GUID>{GUID}</GUID><ParentGUID>"
        "{00000000-0000-0000-0000-000000000000}</ParentGUID></Shot></Snapshots></Parallels_disk_image>"
    )


OVF = """<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
<References><File ovf:href="{href}" ovf:id="f1"{extra}/></References>
<DiskSection><Info>d</Info><Disk ovf:capacity="{capacity}" ovf:diskId="d1" ovf:fileRef="f1"
 ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/></DiskSection>
<VirtualSystem ovf:id="vm"><Info>v</Info><Name>vm</Name></VirtualSystem></Envelope>
"""


def ovf(href, capacity, extra=""):
    return OVF.format(href=href, capacity=capacity, extra=extra).encode()
