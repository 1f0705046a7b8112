"""A Linux kernel whose disk is exported by a daemon, and is moved to another file while it writes."""
import hashlib
import threading

import pytest

from conftest import CAIRN, call
from linux_guest import boot
from qmp import Daemon, wait_for

OURS = CAIRN.parent / "compat" / "qemu-storage-daemon"
SIZE = 10 << 20

SCRIPT = """i=0
while [ $i -lt 40 ]; do
  busybox dd if=/dev/urandom of=/dev/vda bs=64k count=4 seek=$((i * 4)) conv=fsync,notrunc 2>/dev/null || echo FAILED
  i=$((i + 1))
done
busybox sync
busybox echo 3 > /proc/sys/vm/drop_caches
echo DISK $(busybox sha256sum < /dev/vda)
busybox poweroff -f
"""


@pytest.mark.slow
def test_a_disk_is_moved_under_a_machine(folder):
    call(CAIRN, "create", "-f", "qcow2", "disk.qcow2", SIZE)
    call(CAIRN, "create", "-f", "raw", "moved.raw", SIZE)
    said = []
    words = [
        "--blockdev",
        "qcow2,node-name=disk,file.driver=file,file.filename=disk.qcow2,discard=unmap",
        "--blockdev",
        "file,node-name=moved,filename=moved.raw",
        "--export",
        "vhost-user-blk,id=e,node-name=disk,writable=on,num-queues=2,addr.type=unix,addr.path=vm.sock",
    ]
    with Daemon(OURS, *words, directory=folder) as daemon:
        client = daemon.client()

        def run():
            machine = [
                "-object",
                "memory-backend-memfd,id=mem,size=256M,share=on",
                "-machine",
                "memory-backend=mem",
                "-chardev",
                "socket,id=c,path=vm.sock",
                "-device",
                "vhost-user-blk-pci,chardev=c,num-queues=2",
            ]
            said.append(boot(folder, SCRIPT, (), words=machine))

        thread = threading.Thread(target=run)
        thread.start()
        try:
            written = (folder / "disk.qcow2").stat().st_size + (1 << 20)
            wait_for(lambda: (folder / "disk.qcow2").stat().st_size > written, 200)
            client.command(
                "blockdev-mirror", job__id="m", device="disk", target="moved", sync="full"
            )
            client.event("BLOCK_JOB_READY")
            client.command("job-complete", id="m")
            client.event("BLOCK_JOB_COMPLETED")
        finally:
            thread.join()
        assert client.command("query-block-exports")[0]["node-name"] == "moved"
        assert daemon.stop() == (0, "")
    moved = hashlib.sha256((folder / "moved.raw").read_bytes()).hexdigest()
    assert f"DISK {moved}" in said[0] and "FAILED" not in said[0], said[0]
    call(CAIRN, "check", "disk.qcow2")
