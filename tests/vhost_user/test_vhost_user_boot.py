"""A Linux kernel under QEMU whose disk is ours by vhost-user: it reads, writes, flushes and discards, over a reboot."""
import hashlib
import os
import subprocess
import threading

import pytest

from conftest import CAIRN, call
from linux_guest import boot
from vhost_front_end import wait_for
from vhost_server import VhostServer

SCRIPT = """busybox mount -t sysfs sys /sys
if [ -e /sys/block/vda/queue/discard_max_bytes ]; then
  echo LIMITS $(busybox cat /sys/block/vda/size /sys/block/vda/serial /sys/block/vda/queue/write_cache \
    /sys/block/vda/queue/discard_max_bytes /sys/block/vda/queue/write_zeroes_max_bytes)
fi
busybox mount -t ext4 -o discard /dev/vda /mnt || { echo NO MOUNT; busybox poweroff -f; }
if [ -e /mnt/sum ]; then
  cd /mnt && busybox sha256sum -c sum && echo SECOND BOOT FINE
  cd / && busybox umount /mnt
  echo DISK $(busybox sha256sum /dev/vda)
  busybox poweroff -f
fi
busybox dd if=/dev/urandom of=/mnt/data bs=64k count=40
busybox dd if=/dev/urandom of=/mnt/gone bs=64k count=40
busybox sync; busybox rm /mnt/gone
cd /mnt && busybox sha256sum data > sum && cd /
busybox umount /mnt && echo FIRST BOOT DONE
busybox reboot -f
"""


def machine(server, more=""):
    return [
        "-object",
        "memory-backend-memfd,id=mem,size=256M,share=on",
        "-machine",
        "memory-backend=mem",
        "-chardev",
        f"socket,id=c,path={server.socket}{more}",
        "-device",
        "vhost-user-blk-pci,chardev=c,num-queues=2",
    ]


@pytest.mark.slow
def test_a_linux_kernel_works_on_our_disk(folder, ours):
    with open("fs.raw", "wb") as out:
        out.truncate(16 << 20)
    subprocess.run(["/sbin/mkfs.ext4", "-q", "fs.raw"], check=True)
    ours("convert", "-f", "raw", "-O", "qcow2", "fs.raw", "disk.qcow2")
    server = VhostServer(folder, "--queues", "2", image="disk.qcow2")
    try:
        console = boot(folder, SCRIPT, ("crc32c_generic", "ext4"), words=machine(server))
        assert "FIRST BOOT DONE" in console and "SECOND BOOT FINE" in console, console
        assert "LIMITS 32768 vhost_user_blkwrite back 16777216 16777216" in console, console
        said = server.end()
    finally:
        server.kill()
    assert said == ""
    call(CAIRN, "check", "disk.qcow2")
    ours("convert", "-f", "qcow2", "-O", "raw", "disk.qcow2", "after.raw")
    with open("after.raw", "rb") as after:
        assert f"DISK {hashlib.sha256(after.read()).hexdigest()}" in console, console
    call("/sbin/e2fsck", "-f", "-n", "after.raw")
    assert os.path.getsize("after.raw") == 16 << 20


WRITER = """i=0
while [ $i -lt 40 ]; do
  busybox dd if=/dev/urandom of=/tmp/part bs=64k count=4 2>/dev/null
  busybox dd if=/tmp/part of=/dev/vda bs=64k seek=$((i * 4)) conv=fsync,notrunc 2>/dev/null || echo FAILED
  busybox cat /tmp/part >> /tmp/all
  i=$((i + 1))
done
echo WROTE $(busybox sha256sum < /tmp/all)
busybox poweroff -f
"""


@pytest.mark.slow
def test_a_server_that_is_killed_while_the_machine_writes(folder):
    (folder / "disk.raw").write_bytes(bytes(10 << 20))
    servers = [VhostServer(folder, "-f", "raw", "--queues", "2")]
    said = []

    def run():
        said.append(boot(folder, WRITER, (), words=machine(servers[0], ",reconnect-ms=100")))

    thread = threading.Thread(target=run)
    try:
        thread.start()
        with open("disk.raw", "rb") as disk:
            for part in (1, 10, 20):
                wait_for(
                    lambda at=part << 18: os.pread(disk.fileno(), 16, at) != bytes(16),
                    "the machine does not write",
                    200,
                )
                servers[-1].kill()
                servers.append(VhostServer(folder, "-f", "raw", "--queues", "2"))
        thread.join()
        servers[-1].end()
    finally:
        servers[-1].kill()
        thread.join()
    digest = hashlib.sha256((folder / "disk.raw").read_bytes()).hexdigest()
    assert f"WROTE {digest}" in said[0] and "FAILED" not in said[0], said[0]
