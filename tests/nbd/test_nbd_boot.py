"""A Linux kernel under QEMU uses a disk that we serve: mounts it, writes, boots again, and finds what it wrote."""
import os
import subprocess

import pytest

from conftest import call
from linux_guest import boot
from nbd_support import QEMU_NBD, Server

SCRIPT = """busybox mount -t ext4 /dev/vda /mnt || { echo NO MOUNT; busybox poweroff -f; }
if [ -e /mnt/sum ]; then
  cd /mnt && busybox sha256sum -c sum && echo SECOND BOOT FINE
  busybox umount /mnt
  busybox poweroff -f
fi
busybox dd if=/dev/urandom of=/mnt/data bs=64k count=40
cd /mnt && busybox sha256sum data > sum && cd /
busybox umount /mnt && echo FIRST BOOT DONE
busybox reboot -f
"""


@pytest.mark.slow
def test_a_linux_kernel_works_on_our_export(folder, ours):
    with open("fs.raw", "wb") as out:
        out.truncate(16 << 20)
    subprocess.run(["/sbin/mkfs.ext4", "-q", "fs.raw"], check=True)
    ours("convert", "-f", "raw", "-O", "qcow2", "fs.raw", "disk.qcow2")
    one = Server(
        [
            QEMU_NBD,
            "-t",
            "-e",
            "0",
            "--discard=unmap",
            "-k",
            folder / "s.sock",
            "-f",
            "qcow2",
            "disk.qcow2",
        ],
        folder / "s.sock",
    )
    try:
        console = boot(folder, SCRIPT, ("crc32c_generic", "ext4"), one.uri())
        assert "FIRST BOOT DONE" in console and "SECOND BOOT FINE" in console, console
        assert one.stop() == 0
    finally:
        one.end()
    ours("check", "disk.qcow2")
    ours("convert", "-f", "qcow2", "-O", "raw", "disk.qcow2", "after.raw")
    call("/sbin/e2fsck", "-f", "-n", "after.raw")
    assert os.path.getsize("after.raw") == 16 << 20
