"""A Linux kernel under QEMU, with its own driver for a CD-ROM drive whose media come and go: Cairn runs inside of it."""
import hashlib
import os
import queue
import re
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from conftest import CAIRN
from linux_guest import add_modules, kernel, pack, plant_busybox

INIT = """#!/bin/busybox sh
export PATH=/bin
busybox mount -t devtmpfs dev /dev
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t tmpfs tmp /tmp
busybox stty -echo
while read module; do busybox insmod /modules/$module; done < /modules/order
echo READY
while read line; do eval "$line"; echo "DONE $?"; done
"""


class Guest:
    """A shell on the machine's serial line, and the monitor that changes its media."""

    def __init__(self, folder, image, disc):
        self.process = subprocess.Popen(
            [
                "qemu-system-x86_64",
                "-M",
                "pc,accel=tcg",
                "-m",
                "512",
                "-nodefaults",
                "-nographic",
                "-serial",
                "stdio",
                "-monitor",
                f"unix:{folder}/monitor,server,nowait",
                "-kernel",
                image,
                "-initrd",
                "initrd",
                "-append",
                "console=ttyS0 panic=1 quiet",
                "-drive",
                f"file={disc},format=raw,if=ide,media=cdrom,id=cd",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines = queue.Queue()
        threading.Thread(
            target=lambda: [self.lines.put(line.strip()) for line in self.process.stdout],
            daemon=True,
        ).start()
        self.socket = socket.socket(socket.AF_UNIX)

    def boot(self, folder):
        self.until(".*READY")
        self.socket.settimeout(60)
        self.socket.connect(f"{folder}/monitor")
        self.answer()

    def until(self, pattern):
        seen = []
        while True:
            try:
                line = self.lines.get(timeout=60)
            except queue.Empty:
                pytest.fail("the machine does not answer:\n" + "\n".join(seen))
            if found := re.fullmatch(pattern, line):
                return found, "\n".join(seen)
            seen.append(line)

    def run(self, command, ok=True):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        code, out = self.until(r"DONE (\d+)")
        assert not ok or code[1] == "0", (command, code[1], out)
        return int(code[1]), out

    def answer(self):
        text = b""
        while not text.endswith(b"(qemu) "):
            text += self.socket.recv(65536)
        return text.decode()

    def monitor(self, command):
        self.socket.sendall(command.encode() + b"\n")
        return self.answer()

    def end(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def guest(folder):
    image, version = kernel()
    plant_busybox(folder / "root", INIT)
    source = Path(__file__).parent / "eject.c"
    subprocess.run(["gcc", "-static", "-o", folder / "root/bin/eject", source], check=True)
    subprocess.run(["strip", "-o", folder / "root/bin/cairn", CAIRN], check=True)
    for line in subprocess.run(
        ["ldd", CAIRN], capture_output=True, text=True, check=True
    ).stdout.splitlines():
        if found := re.search(r"(/\S+) \(0x", line):
            target = folder / "root" / found[1].lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(Path(found[1]).read_bytes())
            target.chmod(0o755)
    add_modules(folder / "root", version, "ata_piix", "sr_mod", "sg")
    pack(folder / "root", folder / "initrd")
    for name, size in ("first", 4 << 20), ("second", 2 << 20):
        Path(name).write_bytes(os.urandom(size))
    guest = Guest(folder, image, "first")
    try:
        guest.boot(folder)
        yield guest
    finally:
        guest.end()


def digest(name):
    return hashlib.sha256(Path(name).read_bytes()).hexdigest()


def hold(guest):
    """A program that has read, and reads on when it is told to; in the background."""
    guest.run(
        "rm -f /tmp/in; busybox mkfifo /tmp/in; cairn io -r -f raw /dev/sr0 < /tmp/in > /tmp/out 2>&1 & pid=$!; exec 3> /tmp/in; "
        "echo read 0 2k >&3; while ! busybox grep -q ops /tmp/out; do sleep 0.2; done"
    )


def go_on(guest, *commands):
    """Gives the program that was held its next commands and returns all that it said."""
    for command in commands:
        guest.run(f"echo {command} >&3")
    return guest.run("exec 3>&-; wait; cat /tmp/out; echo")[1]


@pytest.mark.slow
def test_media_come_and_go(guest):
    assert "protocol type: host_cdrom" in guest.run("cairn info /dev/sr0")[1]
    assert digest("first") in guest.run("cairn hash /dev/sr0")[1]
    for command in ("read 2048 4k", "read 512 512"):
        guest.run(f"cairn io -n -r -f raw -c '{command}' /dev/sr0")
    assert (
        "The device is not writable"
        in guest.run("cairn io -f raw -c 'write 0 2k' /dev/sr0", ok=False)[1]
    )
    assert "passes SCSI commands on" in guest.run("cairn info /dev/sg0", ok=False)[1]

    # The tray is shut for as long as somebody reads, however that ends.
    assert "not locked, tray closed" in guest.monitor("info block")
    hold(guest)
    assert "device: locked" in guest.monitor("info block")
    assert "is locked" in guest.monitor("eject cd")
    guest.run("kill -9 $pid; wait; exec 3>&-", ok=False)
    assert "not locked, tray closed" in guest.monitor("info block")

    # Taken out by force.
    hold(guest)
    guest.monitor("eject -f cd")
    assert "read failed: No medium found" in go_on(guest, "read 2M 2k")
    empty = guest.run("cairn info /dev/sr0")[1]
    assert "virtual size: 0 B" in empty and "no medium in the drive" in empty
    code, refused = guest.run("cairn map /dev/sr0", ok=False)
    assert (
        code == 1 and "No medium found" in refused and "The tray of the drive is open." in refused
    )

    # Another one.
    guest.monitor("change cd second raw")
    assert "virtual size: 2 MiB" in guest.run("cairn info /dev/sr0")[1]
    assert digest("second") in guest.run("cairn hash /dev/sr0")[1]
    hold(guest)
    guest.monitor("eject -f cd")
    guest.monitor("change cd first raw")
    out = go_on(
        guest, "read 0 2k", "read 1M 2k", "close", "open -r -o driver=raw /dev/sr0", "length"
    )
    assert out.count("read failed") == 2 and "ops" in out, out
    assert "4 MiB" in out.rsplit("read failed", 1)[1], out
    assert digest("first") in guest.run("cairn hash /dev/sr0")[1]

    # The system ejects it when nobody reads, and not before.
    hold(guest)
    guest.run("eject /dev/sr0", ok=False)
    assert "tray closed" in guest.monitor("info block")
    assert "read failed" not in go_on(guest, "read 1M 2k")
    guest.run("eject /dev/sr0")
    assert "tray open" in guest.monitor("info block")
    assert "The tray of the drive is open." in guest.run("cairn map /dev/sr0", ok=False)[1]
    guest.run("eject -t /dev/sr0")
    assert digest("first") in guest.run("cairn hash /dev/sr0")[1]
