"""An iSCSI target of a test: tgtd with a directory of files as units."""
import os
import socket
import subprocess
import time

from support.web import free_port


class Tgt:
    """Target iqn.qemu.test with a disk (1), a CD (2), a disk of 4 KiB blocks (3), a thin one (4) and a read-only one (5); iqn.qemu.chap wants
    me:mypassword12 and proves itself as it:otherpassword12."""

    def __init__(self, folder, size=64 << 20):
        self.folder, self.port = folder, free_port()
        # The control socket has a number of its own.
        self.control = str(self.port % 30000 + 1)
        for name in ("disk1", "cd", "disk3", "disk4", "disk5", "chap"):
            with open(folder / name, "wb") as out:
                out.truncate(4 << 20 if name == "cd" else size)
        os.makedirs("/var/run/tgtd", exist_ok=True)
        self.start()

    def start(self):
        self.job = subprocess.Popen(
            ["tgtd", "-f", "-C", self.control, "--iscsi", f"portal=127.0.0.1:{self.port}"],
            stdout=open(self.folder / "log", "w"),
            stderr=subprocess.STDOUT,
        )
        until = time.monotonic() + 20
        while (
            subprocess.run(
                self.words("--op", "show", "--mode", "sys"), capture_output=True
            ).returncode
            != 0
        ):
            assert self.job.poll() is None and time.monotonic() < until, (
                self.folder / "log"
            ).read_text()
            time.sleep(0.05)
        new = ("--op", "new", "--mode")
        self.admin(*new, "target", "--tid", 1, "-T", "iqn.qemu.test")
        for lun, name, *more in (
            (1, "disk1"),
            (2, "cd", "--device-type=cd"),
            (3, "disk3", "--blocksize", 4096),
            (4, "disk4"),
            (5, "disk5"),
        ):
            self.admin(
                *new, "logicalunit", "--tid", 1, "--lun", lun, "-b", self.folder / name, *more
            )
        self.admin(
            "--op",
            "update",
            "--mode",
            "logicalunit",
            "--tid",
            1,
            "--lun",
            4,
            "--params",
            "thin_provisioning=1",
        )
        self.admin(
            "--op",
            "update",
            "--mode",
            "logicalunit",
            "--tid",
            1,
            "--lun",
            5,
            "--params",
            "readonly=1",
        )
        self.admin(*new, "target", "--tid", 2, "-T", "iqn.qemu.chap")
        self.admin(*new, "logicalunit", "--tid", 2, "--lun", 1, "-b", self.folder / "chap")
        for user, secret, *outgoing in (
            ("me", "mypassword12"),
            ("it", "otherpassword12", "--outgoing"),
        ):
            self.admin(*new, "account", "--user", user, "--password", secret)
            self.admin("--op", "bind", "--mode", "account", "--tid", 2, "--user", user, *outgoing)
        for tid in 1, 2:
            self.admin("--op", "bind", "--mode", "target", "--tid", tid, "-I", "ALL")
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 5).close()
                return
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.05)

    def words(self, *more):
        return ["tgtadm", "-C", self.control, "--lld", "iscsi", *map(str, more)]

    def admin(self, *more):
        return subprocess.run(self.words(*more), check=True, capture_output=True, text=True).stdout

    def url(self, lun, target="iqn.qemu.test"):
        return f"iscsi://127.0.0.1:{self.port}/{target}/{lun}"

    def stop(self):
        self.job.terminate()
        try:
            self.job.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.job.kill()
            self.job.wait()
