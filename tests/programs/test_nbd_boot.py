"""A Linux kernel under QEMU uses a disk that we serve: mounts it, writes, boots again, and finds what it wrote."""
import os
import subprocess
from pathlib import Path

import pytest

from conftest import call
from nbd_support import QEMU_NBD, Server

INIT = """#!/bin/busybox sh
export PATH=/bin
busybox mount -t devtmpfs dev /dev
busybox mount -t proc proc /proc
while read module; do busybox insmod /modules/$module; done < /modules/order
busybox mount -t ext4 /dev/vda /mnt || { echo NO MOUNT; busybox poweroff -f; }
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


def kernel():
    found = sorted(Path("/boot").glob("vmlinuz-*-cloud-amd64"))
    assert found, "Debian's cloud kernel is not installed"
    return found[-1], found[-1].name.removeprefix("vmlinuz-")


def plant_busybox(root, init):
    for name in ("bin", "dev", "proc", "sys", "tmp", "mnt", "modules"):
        (root / name).mkdir(parents=True)
    (root / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (root / "bin/busybox").chmod(0o755)
    (root / "init").write_text(init)
    (root / "init").chmod(0o755)


def add_modules(root, version, *modules):
    """With all that they need, in the order in which they load."""
    order = []
    for module in modules:
        listed = subprocess.run(["/sbin/modprobe", "-S", version, "--show-depends", module], capture_output=True, text=True,
                                check=True).stdout
        for line in listed.splitlines():
            words = line.split()
            if words[0] == "insmod" and Path(words[1]).name not in order:
                order.append(Path(words[1]).name)
                (root / "modules" / order[-1]).write_bytes(Path(words[1]).read_bytes())
    (root / "modules/order").write_text("".join(name + "\n" for name in order))


def pack(root, archive):
    names = "\n".join(str(path.relative_to(root)) for path in root.rglob("*"))
    packed = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], input=names.encode(), cwd=root, capture_output=True,
                            check=True).stdout
    archive.write_bytes(packed)


@pytest.mark.slow
def test_a_linux_kernel_works_on_our_export(folder, ours):
    image, version = kernel()
    plant_busybox(folder / "root", INIT)
    add_modules(folder / "root", version, "virtio_pci", "virtio_blk", "crc32c_generic", "ext4")
    pack(folder / "root", folder / "initrd")
    with open("fs.raw", "wb") as out:
        out.truncate(16 << 20)
    subprocess.run(["/sbin/mkfs.ext4", "-q", "fs.raw"], check=True)
    ours("convert", "-f", "raw", "-O", "qcow2", "fs.raw", "disk.qcow2")
    one = Server([QEMU_NBD, "-t", "-e", "0", "--discard=unmap", "-k", folder / "s.sock", "-f", "qcow2", "disk.qcow2"],
                 folder / "s.sock")
    try:
        console = call("qemu-system-x86_64", "-M", "pc,accel=tcg", "-m", "256", "-nodefaults", "-nographic", "-serial", "stdio",
                       "-kernel", image, "-initrd", "initrd", "-append", "console=ttyS0 panic=1 quiet",
                       "-drive", f"file={one.uri()},format=raw,if=virtio,discard=unmap", timeout=240).out
        assert "FIRST BOOT DONE" in console and "SECOND BOOT FINE" in console, console
        assert one.stop() == 0
    finally:
        one.end()
    ours("check", "disk.qcow2")
    ours("convert", "-f", "qcow2", "-O", "raw", "disk.qcow2", "after.raw")
    call("/sbin/e2fsck", "-f", "-n", "after.raw")
    assert os.path.getsize("after.raw") == 16 << 20
