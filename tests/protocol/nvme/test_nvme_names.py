"""Names and options of NVMe disks: what is wrong with them is said before any device is needed."""
import json

import pytest

pytestmark = [pytest.mark.any_engine, pytest.mark.words]

NOWHERE = "ffff:ff:1f.7"  # no machine has a device there


def as_json(**options):
    return "json:" + json.dumps({"driver": "nvme", **options})


@pytest.mark.parametrize(
    "name, text",
    [
        (f"nvme://{NOWHERE}/1", f"there is no PCI device {NOWHERE}"),
        (f"nvme://{NOWHERE}", f"there is no PCI device {NOWHERE}"),
        (f"nvme://{NOWHERE}/", f"there is no PCI device {NOWHERE}"),
        ("nvme://FF:1f.7/2", "there is no PCI device 0000:ff:1f.7"),
        (f"nvme://{NOWHERE}/x", "Invalid namespace 'x', positive number expected"),
        (f"nvme://{NOWHERE}/0", "Invalid namespace '0', positive number expected"),
        (f"nvme://{NOWHERE}/1/2", "Invalid namespace '1/2', positive number expected"),
        ("nvme://../../etc/1", "'..' is not the address of a PCI device"),
        ("nvme:///1", "'' is not the address of a PCI device"),
        (as_json(namespace=1), "'device' option is required"),
        (as_json(device=NOWHERE), f"there is no PCI device {NOWHERE}"),
        (as_json(device=NOWHERE, namespace=2), f"there is no PCI device {NOWHERE}"),
        (as_json(device=NOWHERE, namespace=0), "Invalid namespace '0'"),
        (as_json(device=NOWHERE, timeout=0), "timeout"),
    ],
)
def test_what_is_wrong_is_said(cairn, name, text):
    done = cairn("info", name, ok=False)
    assert done.code == 1 and text in done.err, done.err


def test_options_of_the_command_line(cairn):
    done = cairn("info", "--image-opts", f"driver=nvme,device={NOWHERE},namespace=3", ok=False)
    assert f"there is no PCI device {NOWHERE}" in done.err


def test_the_same_under_the_name_of_qemu_img(ours):
    done = ours("info", f"nvme://{NOWHERE}/x", ok=False)
    assert done.code == 1 and "Invalid namespace 'x', positive number expected" in done.err
    done = ours("create", "-f", "raw", f"nvme://{NOWHERE}/1", "1M", ok=False)
    assert done.code == 1 and f"there is no PCI device {NOWHERE}" in done.err


@pytest.mark.parametrize(
    "words, text",
    [
        ([], "Expecting list, bind ADDRESS or unbind ADDRESS"),
        (["list", "x"], "Expecting list"),
        (["bind"], "Expecting list"),
        (["eject", NOWHERE], "Expecting list"),
        (["bind", "x"], "'x' is not the address of a PCI device"),
        (["bind", NOWHERE], f"there is no PCI device {NOWHERE}"),
        (["unbind", NOWHERE], f"there is no PCI device {NOWHERE}"),
    ],
)
def test_the_verb(cairn, words, text):
    done = cairn("nvme", *words, ok=False)
    assert done.code == 1 and text in done.err, done.err
