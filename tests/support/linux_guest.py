"""A small Linux machine for tests: Debian's cloud kernel under QEMU, with busybox and a script."""
import re
import shutil
import subprocess
from pathlib import Path

from conftest import call

PROLOGUE = """#!/bin/busybox sh
export PATH=/bin
busybox mount -t devtmpfs dev /dev
busybox mount -t proc proc /proc
while read module; do busybox insmod /modules/$module; done < /modules/order
"""


def kernel():
    found = sorted(Path("/boot").glob("vmlinuz-*-cloud-amd64"))
    assert found, "Debian's cloud kernel is not installed"
    return found[-1], found[-1].name.removeprefix("vmlinuz-")


def plain_kernel():
    """The one with drivers of real machines, of the package linux-image-amd64."""
    found = sorted(
        path
        for path in Path("/boot").glob("vmlinuz-*-amd64")
        if not re.search("cloud|-rt-", path.name)
    )
    assert found, "Debian's kernel is not installed: linux-image-amd64"
    return found[-1], found[-1].name.removeprefix("vmlinuz-")


def plant_program(root, program):
    """With the libraries that it is linked with."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    names = re.findall(r"(/\S+) \(0x", listed)
    assert names
    for name in (program, *names):
        target = root / ("bin" if name == program else str(Path(name).parent).lstrip("/"))
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(name, target / Path(name).name)


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
        listed = subprocess.run(
            ["/sbin/modprobe", "-S", version, "--show-depends", module],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for line in listed.splitlines():
            words = line.split()
            if words[0] == "insmod" and Path(words[1]).name not in order:
                order.append(Path(words[1]).name)
                (root / "modules" / order[-1]).write_bytes(Path(words[1]).read_bytes())
    (root / "modules/order").write_text("".join(name + "\n" for name in order))


def pack(root, archive):
    names = "\n".join(str(path.relative_to(root)) for path in root.rglob("*"))
    packed = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"],
        input=names.encode(),
        cwd=root,
        capture_output=True,
        check=True,
    ).stdout
    archive.write_bytes(packed)


def boot(folder, script, modules, uri=None, words=()):
    """What the machine says whose disk is URI, or what WORDS add to it, and which runs SCRIPT until it is off."""
    disk = ["-drive", f"file={uri},format=raw,if=virtio,discard=unmap"] if uri else []
    image, version = kernel()
    plant_busybox(folder / "root", PROLOGUE + script)
    add_modules(folder / "root", version, "virtio_pci", "virtio_blk", *modules)
    pack(folder / "root", folder / "initrd")
    return call(
        "qemu-system-x86_64",
        "-M",
        "pc,accel=tcg",
        "-m",
        "256",
        "-nodefaults",
        "-nographic",
        "-serial",
        "stdio",
        "-kernel",
        image,
        "-initrd",
        "initrd",
        "-append",
        "console=ttyS0 panic=1 quiet",
        *disk,
        *words,
        timeout=240,
    ).out
