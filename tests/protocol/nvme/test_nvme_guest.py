"""Our NVMe driver on a controller of QEMU behind an IOMMU, in a Linux guest without hardware virtualisation: all verbs, a
process that is killed, a second one, rights and limits, and a controller that is taken away."""
# Packages: linux-image-amd64 qemu-utils
import hashlib
import json
import re
import shutil

import pytest

from conftest import CAIRN, TOP, call
from linux_guest import PROLOGUE, add_modules, pack, plain_kernel, plant_busybox, plant_program

pytestmark = [pytest.mark.any_engine, pytest.mark.slow]

MEBIBYTE = 1 << 20
# Steps print "@@ NAME", what they have to say, and their exit code.
SCRIPT = r"""
busybox --install -s /bin
mkdir /etc; echo user:x:1000:1000::/tmp:/bin/sh > /etc/passwd; echo user:x:1000: > /etc/group
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
BDF=$(for d in /sys/bus/pci/devices/*; do [ "$(cat $d/class)" = 0x010802 ] && basename $d; done)
D=nvme://$BDF
step() { name=$1; shift; "$@" > /tmp/said 2>&1; rc=$?; echo "@@ $name"; cat /tmp/said; echo "@= $rc"; }
# Waits until a command succeeds: the machine may be slow.
until_ok() { n=0; until "$@" 2>/dev/null; do n=$((n+1)); [ $n -gt 600 ] && return 1; usleep 100000; done; }
holds() { grep -q "$1" /tmp/held; }
as_user() { su user -c "$1"; }
echo "@@ address"; echo $BDF; echo "@= 0"
until_ok [ -b /dev/nvme0n2 ]
step list_kernel cairn nvme list --output json
step info_kernel cairn info $D/1
step bind_no_driver cairn nvme bind $BDF
while read module; do insmod /modules/$module; done < /modules/vfio_order
mkswap /dev/nvme0n2 >/dev/null; swapon /dev/nvme0n2
step bind_used cairn nvme bind $BDF
swapoff /dev/nvme0n2
step bind cairn nvme bind $BDF
step list_text cairn nvme list
step info1 cairn info --output json $D/1
step info2 cairn info --output json $D/2
step info257 cairn info $D/257
step create_large cairn create -f raw $D/1 1G
step convert1 cairn convert --overwrite /disk.qcow2 $D/1
step map cairn map -f raw --output json $D/1
step hash cairn hash -f raw $D/1
step convert2 cairn convert -f raw -O qcow2 $D/1 /tmp/back.qcow2
step compare3 cairn compare /disk.qcow2 /tmp/back.qcow2
rm /tmp/back.qcow2
step format cairn convert --overwrite -O qcow2 /disk.qcow2 $D/2
step format_check cairn check $D/2
step format_compare cairn compare -f qcow2 -F qcow2 /disk.qcow2 $D/2

# A qcow2 image in the namespace, by the verbs that change it.
Q=$D/2
step snapshot_create cairn snapshot -c first $Q
step snapshot_list cairn snapshot -l $Q
step snapshot_after cairn io -c 'write -P 0x77 1M 64k' $Q
step hash_after cairn hash $Q
step snapshot_apply cairn snapshot -a first $Q
step hash_applied cairn hash $Q
step snapshot_delete cairn snapshot -d first $Q
step amend cairn amend -o lazy_refcounts=on $Q
step bitmap_add cairn bitmap --add $Q marks
step bitmap_marks cairn io -c 'write -P 0 7M 64k' $Q
step amended cairn info --output json $Q
step bitmap_remove cairn bitmap --remove $Q marks
step overlay cairn create -f qcow2 -b $Q -F qcow2 /tmp/over.qcow2
step overlay_write cairn io -c 'write -P 0x66 2M 64k' /tmp/over.qcow2
step commit cairn commit /tmp/over.qcow2
step committed cairn io -r -c 'read -P 0x66 2M 64k' $Q
step rebase cairn rebase -b /disk.qcow2 -F qcow2 /tmp/over.qcow2
step rebase_compare cairn compare /tmp/over.qcow2 $Q
step resize_larger cairn resize $Q 9M
step map_image cairn map --output json $Q
step measure cairn measure --output json -O raw $Q
step compact cairn compact $Q
step backup cairn backup $Q /tmp/backups
step restore cairn restore /tmp/backups /tmp/restored.qcow2
step restore_compare cairn compare /tmp/restored.qcow2 $Q
step bench cairn bench -c 100 $Q
step create cairn create -f qcow2 -b /disk.qcow2 -F qcow2 $D/1
step flatten cairn rebase -b '' $D/1
step flatten_compare cairn compare -f qcow2 /disk.qcow2 $D/1
step verbs_check cairn check $Q
step amend_back cairn amend -o lazy_refcounts=off $Q
rm -r /tmp/*.qcow2 /tmp/backups

# Killed while it writes the image and its tables.
cairn bench -w -t writethrough -d 4 -c 100000000 -o 2162688 -s 65536 --pattern 85 $Q > /tmp/benched 2>&1 &
pid=$!
until_ok [ -s /tmp/benched ]; sleep 1
kill -9 $pid; wait $pid
step killed_image echo $?
step killed_check cairn check $Q
step repair cairn check -r all $Q
step repaired cairn check $Q
step map_repaired cairn map --output json $Q

step io1 cairn io -f raw --discard unmap -c 'write -P 0x11 0 1M' -c 'write -P 0x22 512 512' -c 'write -f -P 0x33 1025 3' \
  -c 'write -z 64k 64k' -c 'write -z -u 256k 64k' -c 'discard 512k 64k' -c flush -c 'read -P 0x11 0 512' -c 'read -P 0x22 512 512' \
  -c 'read -P 0x33 1025 3' -c 'read -P 0 64k 64k' -c 'read -P 0 256k 64k' -c 'read -P 0 512k 64k' -c 'read -P 0x11 576k 448k' $D/1
step io2 cairn io -f raw -c 'write -P 0x44 0 3M' -c 'write -P 0x55 512 1000' -c 'read -P 0x44 0 512' -c 'read -P 0x55 512 1000' \
  -c 'read -P 0x44 1512 3144216' $D/2
step past_end cairn io -f raw -c 'write -P 1 8M 512' $D/1

# One who holds it open, and a second one.
(echo 'read 0 512'; until_ok [ -e /tmp/enough ]; echo quit) | cairn io -f raw $D/1 > /tmp/held 2>&1 &
until_ok holds 'read 512'
step second cairn info $D/1
touch /tmp/enough; wait

# Killed while it writes; then it can be opened at once.
rm /tmp/held
while echo 'write -P 0xcc 0 4M'; do :; done 2>/dev/null | cairn io -f raw $D/1 > /tmp/held 2>&1 &
pid=$!
until_ok holds 'wrote 4194304'
kill -9 $pid; wait $pid
step killed echo $?
step reopen cairn io -f raw -c 'read -P 0xcc 0 4M' $D/1
step convert3 cairn convert --overwrite /disk.qcow2 $D/1
step compare4 cairn compare -f qcow2 -F raw /disk.qcow2 $D/1

# By other verbs, and as the disk of a server.
step dd cairn dd -f raw -O raw bs=1M count=1 if=$D/1 of=/tmp/first
step dd_sum sha256sum /tmp/first
step resize cairn resize -f raw $D/1 +1M
cairn serve -r -f raw -k /tmp/nbd.sock $D/1 > /tmp/served 2>&1 &
pid=$!
until_ok [ -S /tmp/nbd.sock ]
step served cairn hash -f raw "nbd+unix:///?socket=/tmp/nbd.sock"
kill $pid; wait $pid

# As a user who is not root.
group=$(basename $(readlink /sys/bus/pci/devices/$BDF/iommu_group))
chmod 666 /dev/vfio/vfio
step user_no_right as_user "cairn info $D/1"
chown 1000 /dev/vfio/$group
step user_no_memory as_user "ulimit -l 64; cairn info $D/1"
step user_hash as_user "ulimit -l 8192; cairn hash -f raw $D/1"

# Taken away while it is in use.
rm /tmp/enough /tmp/held
(echo 'read 0 512'; until_ok [ -e /tmp/enough ]; echo 'read 4096 512'; echo quit) | cairn io -f raw $D/1 > /tmp/held 2>&1 &
until_ok holds 'read 512'
echo 1 > /sys/bus/pci/devices/$BDF/remove
step removed [ ! -e /sys/bus/pci/devices/$BDF ]
touch /tmp/enough; wait
step removed_io cat /tmp/held
step gone cairn info $D/1
echo 1 > /sys/bus/pci/rescan
until_ok [ -e /sys/bus/pci/devices/$BDF ]
step bind_again cairn nvme bind $BDF
step unbind cairn nvme unbind $BDF
until_ok [ -b /dev/nvme0n1 ]
step kernel_sum sha256sum /dev/nvme0n1
echo "@@ end"
poweroff -f
"""


def order_of(root, version, *modules):
    """The modules, in the order in which they load, are added to those of ROOT."""
    add_modules(root, version, *modules)
    return (root / "modules/order").read_text()


def boot(folder):
    image, version = plain_kernel()
    root = folder / "root"
    plant_busybox(root, PROLOGUE + SCRIPT)
    plant_program(root, str(CAIRN))
    shutil.copy(folder / "disk.qcow2", root)
    first = order_of(root, version, "nvme")
    rest = order_of(root, version, "nvme", "vfio-pci", "vfio_iommu_type1").removeprefix(first)
    (root / "modules/order").write_text(first)
    (root / "modules/vfio_order").write_text(rest)
    pack(root, folder / "initrd")
    shutil.rmtree(root)
    words = []
    for number in 1, 2:
        words += ["-drive", f"if=none,id=n{number},file=ns{number}.raw,format=raw,discard=unmap"]
    return call(
        "qemu-system-x86_64",
        *"-M q35,accel=tcg,kernel-irqchip=split -cpu max -m 512 -smp 2 -nodefaults -nographic".split(),
        *"-serial stdio -no-reboot -kernel".split(),
        image,
        *"-initrd initrd -append".split(),
        "console=ttyS0 panic=1 quiet intel_iommu=on",
        *"-device intel-iommu,intremap=on,caching-mode=on -device nvme,id=nv0,serial=deadbeef".split(),
        *words,
        *"-device nvme-ns,bus=nv0,drive=n1,nsid=1".split(),
        "-device",
        "nvme-ns,bus=nv0,drive=n2,nsid=2,logical_block_size=4096,physical_block_size=4096",
        timeout=540,
    ).out


@pytest.fixture(scope="module")
def guest(tmp_path_factory):
    """What each step said, with its exit code."""
    folder = tmp_path_factory.mktemp("nvme")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        content = b"".join(bytes([i % 251 + 1]) * 512 for i in range(4096)) + bytes(3 * MEBIBYTE)
        content += hashlib.sha512(b"x").digest() * (2 * MEBIBYTE // 64)
        content = content.ljust(8 * MEBIBYTE, b"\0")
        (folder / "disk.raw").write_bytes(content)
        call("qemu-img", "convert", "-c", "-O", "qcow2", "disk.raw", "disk.qcow2")
        for name in "ns1.raw", "ns2.raw":
            with open(name, "wb") as out:
                out.truncate((8 if name == "ns1.raw" else 16) * MEBIBYTE)
        console = boot(folder).replace("\r", "")
    steps = {
        name: (int(code), said)
        for name, said, code in re.findall(r"@@ (\w+)\n(.*?)@= (\d+)\n", console, re.S)
    }
    assert "@@ end" in console, console
    steps["first"] = hashlib.sha256(content[:MEBIBYTE]).hexdigest()
    steps["sum"] = hashlib.sha256(content).hexdigest()
    steps["disk"] = (folder / "ns1.raw").read_bytes() == content
    return steps


def said(guest, step, code=0):
    """What STEP printed, which ended with CODE."""
    assert guest[step][0] == code, guest[step]
    return guest[step][1]


def test_what_is_missing_is_said(guest):
    address = said(guest, "address").strip()
    text = said(guest, "info_kernel", 1)
    assert f"the driver nvme has the NVMe controller {address}" in text
    assert f"cairn nvme bind {address}" in text
    assert "modprobe vfio-pci" in said(guest, "bind_no_driver", 1)
    assert "/dev/nvme0n2 is in use by this system" in said(guest, "bind_used", 1)
    assert "Permission denied" in said(guest, "user_no_right", 1)
    assert "chown USER /dev/vfio/" in said(guest, "user_no_right", 1)
    assert "ulimit -l" in said(guest, "user_no_memory", 1)
    assert "is in use" in said(guest, "second", 1)
    assert "the controller has 256 at most" in said(guest, "info257", 1)
    assert "Cannot grow NVMe devices" in said(guest, "create_large", 1)
    said(guest, "past_end", 1)


def test_controllers_are_listed(guest):
    """With the members that the page names."""
    (one,) = json.loads(said(guest, "list_kernel"))["controllers"]
    page = (TOP / "docs/nvme.md").read_text()
    text = re.search(r"prints for each of `controllers`:(.*?)\n\n", page, re.S)[1]
    assert set(one) == set(re.findall(r"`([\w-]+)`", text)) - {"nvme"}
    assert one["address"] == said(guest, "address").strip() and one["driver"] == "nvme"
    assert one["serial"] == "deadbeef" and not one["usable"]
    assert one["disks"] == ["/dev/nvme0n1", "/dev/nvme0n2"]
    said(guest, "bind")
    assert f"vfio-pci  {one['iommu-group']:7}nvme://{one['address']}/1" in said(guest, "list_text")


def test_namespaces_are_described(guest):
    for step, size, block in (("info1", 8, 512), ("info2", 16, 4096)):
        info = json.loads(said(guest, step))
        assert info["virtual-size"] == size * MEBIBYTE
        data = info["children"][0]["info"]["format-specific"]["data"]
        assert data["serial"] == "deadbeef" and data["block-size"] == block
    (extent,) = json.loads(said(guest, "map"))
    assert extent["length"] == 8 * MEBIBYTE and extent["data"]


def test_conversions_onto_and_from_a_namespace(guest):
    for step in "convert1", "convert2", "compare3", "format", "format_check", "format_compare":
        said(guest, step)
    assert said(guest, "hash").split()[0] == guest["sum"]


def test_verbs_that_change_an_image(guest):
    """The qcow2 image in the second namespace, which every step leaves as the next one needs it."""
    assert "first" in said(guest, "snapshot_list")
    assert said(guest, "hash_after").split()[0] != guest["sum"]
    assert said(guest, "hash_applied").split()[0] == guest["sum"]
    data = json.loads(said(guest, "amended"))["format-specific"]["data"]
    assert data["lazy-refcounts"] and data["bitmaps"][0]["name"] == "marks"
    assert sum(extent["length"] for extent in json.loads(said(guest, "map_image"))) == 9 * MEBIBYTE
    assert json.loads(said(guest, "measure"))["required"] == 9 * MEBIBYTE
    assert "compact works on files" in said(guest, "compact", 1)
    for step in (
        *("snapshot_create", "snapshot_after", "snapshot_apply", "snapshot_delete", "amend"),
        *("bitmap_add", "bitmap_marks", "bitmap_remove", "overlay", "overlay_write", "commit"),
        *("committed", "rebase", "rebase_compare", "resize_larger", "backup", "restore"),
        *(
            "restore_compare",
            "bench",
            "create",
            "flatten",
            "flatten_compare",
            "verbs_check",
            "amend_back",
        ),
    ):
        assert "Pattern" not in said(guest, step)


def test_an_image_whose_writer_was_killed(guest):
    """It has some of what was written, and has lost space at worst."""
    assert said(guest, "killed_image").strip() == "137"
    code, text = guest["killed_check"]
    assert code in (0, 3) and "ERROR" not in text
    said(guest, "repair")
    assert "No errors were found" in said(guest, "repaired")

    def present(step):
        return sum(each["length"] for each in json.loads(said(guest, step)) if each["present"])

    assert present("map_repaired") > present("map_image")


def test_requests_of_all_kinds(guest):
    for step in "io1", "io2":
        text = said(guest, step)
        assert "failed" not in text and "Pattern" not in text, text


def test_a_process_that_is_killed(guest):
    assert said(guest, "killed").strip() == "137"
    assert "Pattern" not in said(guest, "reopen")
    said(guest, "convert3")
    said(guest, "compare4")


def test_other_verbs(guest):
    said(guest, "dd")
    assert said(guest, "dd_sum").split()[0] == guest["first"]
    assert "Cannot resize NVMe devices" in said(guest, "resize", 1)
    assert said(guest, "served").split()[0] == guest["sum"]


def test_a_user_who_is_not_root(guest):
    assert said(guest, "user_hash").split()[0] == guest["sum"]


def test_a_controller_that_is_taken_away(guest):
    said(guest, "removed")
    text = said(guest, "removed_io")
    assert "the NVMe controller is removed" in text and "read failed: Input/output error" in text
    assert "there is no PCI device" in said(guest, "gone", 1)


def test_the_kernel_gets_it_back(guest):
    """And finds what we wrote, as QEMU's file has it."""
    said(guest, "bind_again")
    said(guest, "unbind")
    assert said(guest, "kernel_sum").split()[0] == guest["sum"] and guest["disk"]
