"""Nodes over another backing file than their image names: what images are said to be over them."""
import json

import pytest

from job_disks import both, info, pair, run, same

MARK = {"stored": 1, "other": 2}


def prepare(one, image):
    """An image over "stored", or over nothing, and "other": each has its own pattern."""
    for name, pattern in MARK.items():
        run("qemu-img", "create", "-q", "-f", "qcow2", one.path(name), "1M")
        run("qemu-io", "-c", f"write -P {pattern} 0 64k", one.path(name))
    below = ["-b", one.path("stored"), "-F", "qcow2"] if image == "over" else []
    run("qemu-img", "create", "-q", "-f", "qcow2", *below, one.path("image"), "1M")


def qcow2(one, name):
    return {"driver": "qcow2", "file": {"driver": "file", "filename": one.path(name)}}


@pytest.mark.parametrize("image", ["over", "alone"])
@pytest.mark.parametrize("backing", ["other", "stored", None])
def test_a_snapshot_is_over_what_the_node_was(both, image, backing):
    def steps(one):
        prepare(one, image)
        below = backing and qcow2(one, backing)
        said = [one.ask("blockdev-add", node_name="n", backing=below, **qcow2(one, "image"))]
        files = {"snapshot_file": one.path("new"), "snapshot_node_name": "s"}
        said.append(one.ask("blockdev-snapshot-sync", node_name="n", **files))
        one.names += ["n", "s"]
        name = info(one.path("new"))["backing-filename"]
        return [*said, name.replace(str(one.directory), "")]

    same(both, steps)
    for one in both:
        one.drop_nodes()
        pattern = MARK.get(backing, 0)
        run("qemu-io", "-r", "-c", f"read -P {pattern} 0 64k", one.path("new"))


DISKS = [
    {"driver": "null-co", "size": 1 << 20, "read-zeroes": True},
    {"driver": "quorum", "vote-threshold": 1, "children": [{"driver": "null-co"}]},
    {"driver": "nbd", "server": {"type": "unix", "path": "nowhere.sock"}},
]


@pytest.mark.parametrize("backing", DISKS, ids=lambda disk: disk["driver"])
def test_disks_that_have_no_file(both, backing):
    def steps(one):
        prepare(one, "alone")
        if backing["driver"] != "nbd":
            one.names.append("n")
        return [one.ask("blockdev-add", node_name="n", backing=backing, **qcow2(one, "image"))]

    same(both, steps)
