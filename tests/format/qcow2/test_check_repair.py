"""What `cairn check -r` repairs in qcow2 images beyond QEMU's checks."""
import os
import struct


def test_counters_past_the_end_of_the_file(folder, cairn, qemu, qemu_io):
    """What a killed program had taken is given back before the file grows there."""
    qemu("create", "-f", "qcow2", "a.qcow2", "8M")
    qemu_io("a.qcow2", "write -P 1 0 1M")
    with open("a.qcow2", "r+b") as file:
        file.seek(48)
        (table,) = struct.unpack(">Q", file.read(8))
        file.seek(table)
        (block,) = struct.unpack(">Q", file.read(8))
        end = os.path.getsize("a.qcow2") // 65536
        file.seek(block + 2 * end)
        file.write(b"\0\1\0\1")
    cairn("check", "a.qcow2")
    cairn("check", "-r", "leaks", "a.qcow2")
    qemu_io("a.qcow2", "write -P 2 2M 2M")
    cairn("check", "a.qcow2")
    assert "No errors" in qemu("check", "a.qcow2").out
