"""Nodes and what changes them at run time: every reply compared with qemu-storage-daemon's own."""
import subprocess

import pytest
from conftest import CAIRN
from qmp import Daemon, comparable

OURS = CAIRN.parent / "compat" / "qemu-storage-daemon"
MIB = 1 << 20


def file_node(name, **more):
    return {"driver": "file", "node-name": f"{name}-f", "filename": f"{name}.img", **more}


def add(name, driver="qcow2", file=None, **more):
    """blockdev-add of the image NAME.img with the nodes NAME and NAME-f."""
    more = {key.replace("_", "-"): value for key, value in more.items()}
    return "blockdev-add", {
        "driver": driver,
        "node-name": name,
        "file": file or file_node(name),
        **more,
    }


def reopen(*sets):
    return "blockdev-reopen", {"options": [dict(one) for one in sets]}


def qcow2(name, **more):
    more = {key.replace("_", "-"): value for key, value in more.items()}
    return {"driver": "qcow2", "node-name": name, "file": f"{name}-f", **more}


def delete(name):
    return "blockdev-del", {"node-name": name}


def snapshot(node, overlay):
    return "blockdev-snapshot", {"node": node, "overlay": overlay}


def bitmap(verb, node, name, **more):
    return f"block-dirty-bitmap-{verb}", {"node": node, "name": name, **more}


def merge(node, target, *sources):
    return "block-dirty-bitmap-merge", {"node": node, "target": target, "bitmaps": list(sources)}


def transaction(*steps, **more):
    actions = [{"type": name, "data": data} for name, data in steps]
    return "transaction", {"actions": actions, **more}


CHAIN = [add("base"), add("mid", backing="base"), add("top", backing="mid")]
OVER = add("over", backing=None)

# Images that a scenario finds: a.img to c.img are qcow2 disks of 4 MiB; raw.img are bytes.
SCENARIOS = {
    "names": [
        add("1a", file=file_node("a")),
        add("x" * 32, file=file_node("a")),
        add("a", file="nope"),
        add("a"),
        ("blockdev-add", {"driver": "null-co", "node-name": "a"}),
        ("blockdev-add", {"driver": "null-co"}),
        ("blockdev-add", {"driver": "nope", "node-name": "n"}),
        add("b", file={**file_node("b"), "filename": "missing.img"}),
        add("b", driver="raw", file=file_node("b", **{"no-such": 1})),
        delete("a-f"),
        delete("nope"),
        delete("a"),
    ],
    "deletion": [
        *CHAIN,
        delete("base"),
        delete("mid-f"),
        delete("top"),
        delete("mid"),
        delete("base"),
        delete("base"),
    ],
    "a child that another uses": [
        add("a"),
        ("blockdev-add", {"driver": "raw", "node-name": "r", "file": "a"}),
        delete("a"),
        delete("r"),
        delete("a"),
    ],
    "a file that a format has": [
        add("a"),
        ("blockdev-add", {"driver": "qcow2", "node-name": "b", "file": "a-f"}),
        ("blockdev-add", {"driver": "raw", "node-name": "r", "file": "a-f"}),
        delete("r"),
        delete("a"),
    ],
    "read-only": [
        add("a", read_only=True),
        ("blockdev-add", {"driver": "qcow2", "node-name": "b", "file": "a-f"}),
        ("block_resize", {"node-name": "a", "size": MIB}),
        ("blockdev-snapshot-internal-sync", {"device": "a", "name": "s"}),
    ],
    "reopening": [
        *CHAIN,
        reopen(),
        reopen({"driver": "qcow2", "file": "top-f"}),
        reopen(qcow2("nope")),
        reopen(qcow2("top")),
        reopen({**qcow2("top", backing="mid"), "driver": "raw"}),
        reopen({**qcow2("top", backing="mid"), "file": "nope"}),
        reopen({**qcow2("top", backing="mid"), "file": "top"}),
        reopen({"driver": "file", "node-name": "top-f", "filename": "other"}),
        reopen({"driver": "file", "node-name": "top-f"}),
        reopen(qcow2("top", backing="mid", detect_zeroes="unmap")),
        reopen(qcow2("top", backing="mid", discard="unmap", detect_zeroes="unmap")),
        reopen(qcow2("top", backing="base")),
        delete("mid"),
        reopen(qcow2("top", backing=None)),
        reopen(qcow2("top", backing="nope")),
        reopen(qcow2("top", backing="base"), qcow2("base", no_such=1)),
        delete("base"),
    ],
    "snapshots": [
        *CHAIN,
        OVER,
        snapshot("nope", "over"),
        snapshot("top", "nope"),
        snapshot("top", "base"),
        snapshot("mid", "over"),
        snapshot("top", "over"),
        snapshot("over", "over"),
        delete("top"),
        delete("over"),
        ("blockdev-add", {"driver": "null-co", "node-name": "null"}),
        snapshot("top", "null"),
    ],
    "snapshots in files": [
        *CHAIN,
        ("blockdev-snapshot-sync", {"node-name": "top", "snapshot-file": "s.img"}),
        (
            "blockdev-snapshot-sync",
            {"node-name": "top", "snapshot-file": "s.img", "snapshot-node-name": "mid"},
        ),
        (
            "blockdev-snapshot-sync",
            {
                "node-name": "top",
                "snapshot-file": "s.img",
                "snapshot-node-name": "s",
                "format": "nope",
            },
        ),
        (
            "blockdev-snapshot-sync",
            {"node-name": "top", "snapshot-file": "s.img", "snapshot-node-name": "s"},
        ),
        delete("s"),
        delete("top"),
    ],
    "internal snapshots": [
        add("base"),
        add("mid", backing="base"),
        ("blockdev-snapshot-internal-sync", {"device": "nope", "name": "s"}),
        ("blockdev-snapshot-internal-sync", {"device": "base", "name": "s"}),
        ("blockdev-snapshot-internal-sync", {"device": "mid", "name": ""}),
        ("blockdev-snapshot-internal-sync", {"device": "mid", "name": "s"}),
        ("blockdev-snapshot-internal-sync", {"device": "mid", "name": "s"}),
        ("blockdev-snapshot-delete-internal-sync", {"device": "mid"}),
        ("blockdev-snapshot-delete-internal-sync", {"device": "mid", "name": "t"}),
        ("blockdev-snapshot-delete-internal-sync", {"device": "mid", "name": "s", "id": "9"}),
        add("raw", driver="raw"),
        ("blockdev-snapshot-internal-sync", {"device": "raw", "name": "s"}),
        ("blockdev-snapshot-delete-internal-sync", {"device": "raw", "name": "s"}),
    ],
    "backing names": [
        *CHAIN,
        (
            "change-backing-file",
            {"device": "mid", "image-node-name": "mid", "backing-file": "x.img"},
        ),
        (
            "change-backing-file",
            {"device": "top", "image-node-name": "base", "backing-file": "x.img"},
        ),
        (
            "change-backing-file",
            {"device": "top", "image-node-name": "nope", "backing-file": "x.img"},
        ),
        (
            "change-backing-file",
            {"device": "nope", "image-node-name": "top", "backing-file": "x.img"},
        ),
        (
            "change-backing-file",
            {"device": "top", "image-node-name": "mid", "backing-file": "x.img"},
        ),
        OVER,
        (
            "change-backing-file",
            {"device": "top", "image-node-name": "over", "backing-file": "x.img"},
        ),
    ],
    "sizes": [
        *CHAIN,
        ("block_resize", {"node-name": "top", "size": -1}),
        ("block_resize", {"node-name": "top", "size": 4 * MIB + 1}),
        ("block_resize", {"node-name": "nope", "size": MIB}),
        ("block_resize", {"node-name": "base", "size": 8 * MIB}),
        ("block_resize", {"node-name": "top", "size": 8 * MIB}),
        ("block_resize", {"size": MIB}),
        (
            "blockdev-add",
            {"driver": "raw", "node-name": "w", "size": MIB, "file": file_node("raw")},
        ),
        ("block_resize", {"node-name": "w", "size": 2 * MIB}),
    ],
    "write thresholds": [
        add("a"),
        ("block-set-write-threshold", {"node-name": "nope", "write-threshold": 1}),
        ("block-set-write-threshold", {"node-name": "a", "write-threshold": 1 << 20}),
        ("block-set-write-threshold", {"node-name": "a", "write-threshold": 0}),
    ],
    "inactive nodes": [
        *CHAIN,
        ("blockdev-set-active", {"node-name": "nope", "active": False}),
        ("blockdev-set-active", {"node-name": "mid", "active": False}),
        ("blockdev-set-active", {"node-name": "top", "active": False}),
        ("blockdev-set-active", {"node-name": "top", "active": False}),
        ("blockdev-set-active", {"node-name": "top", "active": True}),
        ("blockdev-set-active", {"active": False}),
        ("blockdev-set-active", {"active": True}),
    ],
    "quorum": [
        *[add(name, driver="raw", file=file_node(name)) for name in "abc"],
        (
            "blockdev-add",
            {
                "driver": "quorum",
                "node-name": "q",
                "vote-threshold": 2,
                "children": ["a", "b"],
            },
        ),
        ("x-blockdev-change", {"parent": "q", "child": "children.0"}),
        ("x-blockdev-change", {"parent": "q", "child": "children.7"}),
        ("x-blockdev-change", {"parent": "q", "node": "a"}),
        ("x-blockdev-change", {"parent": "q", "node": "nope"}),
        ("x-blockdev-change", {"parent": "nope", "node": "c"}),
        ("x-blockdev-change", {"parent": "c", "node": "c"}),
        ("x-blockdev-change", {"parent": "q"}),
        ("x-blockdev-change", {"parent": "q", "child": "children.0", "node": "c"}),
        ("x-blockdev-change", {"parent": "q", "node": "c"}),
        ("x-blockdev-change", {"parent": "q", "child": "children.1"}),
        delete("b"),
        ("x-blockdev-change", {"parent": "q", "child": "children.1"}),
        delete("c"),
    ],
    "copies before writes": [
        add("a", discard="unmap"),
        bitmap("add", "a", "x"),
        *[
            ("blockdev-add", {"driver": "copy-before-write", "node-name": "cbw", **more})
            for more in (
                {"file": "a"},
                {"target": "a"},
                {"file": "nope", "target": "a"},
                {"file": "a", "target": "nope"},
            )
        ],
        add("b"),
        *[
            (
                "blockdev-add",
                {
                    "driver": "copy-before-write",
                    "node-name": "cbw",
                    "file": "a",
                    "target": "b",
                    **more,
                },
            )
            for more in (
                {"bitmap": {"node": "a", "name": "nope"}},
                {"bitmap": {"node": "nope", "name": "x"}},
                {"min-cluster-size": 1000},
                {"on-cbw-error": "nope"},
                {"cbw-timeout": -1},
                {"bitmap": {"node": "a", "name": "x"}, "min-cluster-size": 1 << 20},
            )
        ],
        bitmap("remove", "a", "x"),
        ("blockdev-add", {"driver": "snapshot-access", "node-name": "sa"}),
        ("blockdev-add", {"driver": "snapshot-access", "node-name": "sa", "file": "nope"}),
        ("blockdev-add", {"driver": "snapshot-access", "node-name": "sa", "file": "cbw"}),
        ("blockdev-add", {"driver": "raw", "node-name": "r", "file": "a"}),
        reopen({"driver": "copy-before-write", "node-name": "cbw", "file": "a", "target": "b"}),
        reopen({"driver": "snapshot-access", "node-name": "sa", "file": "cbw"}),
        ("block_resize", {"node-name": "sa", "size": 8 * MIB}),
        delete("cbw"),
        delete("sa"),
        delete("b"),
        delete("cbw"),
        delete("b"),
    ],
    "bitmaps": [
        add("a"),
        bitmap("add", "nope", "x"),
        bitmap("add", "a", ""),
        bitmap("add", "a", "y" * 1024),
        bitmap("add", "a", "x", granularity=0),
        bitmap("add", "a", "x", granularity=1000),
        bitmap("add", "a", "x", granularity=256),
        bitmap("add", "a-f", "x", persistent=True),
        bitmap("add", "a", "x"),
        bitmap("add", "a", "x"),
        bitmap("add", "a", "p", persistent=True, disabled=True, granularity=4096),
        bitmap("disable", "a", "x"),
        bitmap("disable", "a", "x"),
        bitmap("enable", "a", "x"),
        bitmap("enable", "a", "nope"),
        bitmap("clear", "a", "x"),
        bitmap("clear", "a", "nope"),
        merge("a", "x", "p"),
        merge("a", "x", "nope"),
        merge("a", "nope", "x"),
        merge("a", "x", "x"),
        merge("a", "x", {"node": "nope", "name": "x"}),
        ("block_resize", {"node-name": "a", "size": 8 * MIB}),
        add("b"),
        bitmap("add", "b", "small"),
        merge("a", "x", {"node": "b", "name": "small"}),
        ("x-debug-block-dirty-bitmap-sha256", {"node": "a", "name": "x"}),
        ("x-debug-block-dirty-bitmap-sha256", {"node": "a", "name": "nope"}),
        bitmap("remove", "a", "nope"),
        bitmap("remove", "a", "x"),
    ],
    "transactions": [
        add("a"),
        OVER,
        transaction(),
        transaction(bitmap("add", "a", "x"), ("abort", {})),
        bitmap("remove", "a", "x"),
        transaction(bitmap("add", "a", "x"), bitmap("disable", "a", "x")),
        transaction(bitmap("remove", "a", "x"), bitmap("add", "a", "x")),
        transaction(
            bitmap("add", "a", "z"),
            bitmap("add", "a", "sum", disabled=True),
            merge("a", "sum", "x"),
        ),
        transaction(bitmap("add", "a", "w"), properties={"completion-mode": "grouped"}),
        transaction(snapshot("a", "over"), bitmap("add", "over", "b"), ("abort", {})),
        delete("over"),
        OVER,
        transaction(snapshot("a", "over"), bitmap("add", "over", "b")),
        bitmap("remove", "over", "b"),
        delete("a"),
    ],
}


def backup(job, source, target, **more):
    more = {key.replace("_", "-"): value for key, value in more.items()}
    data = {"job-id": job, "device": source, "target": target, "sync": "full", **more}
    return "blockdev-backup", data


GROUPED = {"completion-mode": "grouped"}
SCENARIOS["transactions with backups"] = [
    *[add(name) for name in "abc"],
    transaction(backup("j", "a", "b"), ("abort", {})),
    ("query-jobs", {}),
    transaction(backup("j", "a", "b"), backup("j", "a", "c")),
    transaction(backup("j", "a", "nope")),
    transaction(backup("j", "a", "b", sync="bitmap", bitmap="nope", bitmap_mode="never")),
    transaction(bitmap("add", "a", "x"), backup("j", "a", "b", speed=-1), properties={**GROUPED}),
    transaction(backup("j", "a", "b", speed=-1)),
    ("query-jobs", {}),
    transaction(
        bitmap("add", "a", "x", disabled=True),
        backup("j", "a", "b", sync="incremental", bitmap="x", auto_finalize=False),
    ),
    ("job-cancel", {"id": "nope"}),
    bitmap("remove", "a", "x"),
]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A directory with the images, to be copied."""
    folder = tmp_path_factory.mktemp("images")
    for name in ("a", "b", "c", "base", "mid", "top", "over"):
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", folder / f"{name}.img", "4M"], check=True
        )
    (folder / "raw.img").write_bytes(bytes(4 * MIB))
    return folder


def transcript(program, steps, images, folder):
    folder.mkdir()
    for image in images.iterdir():
        (folder / image.name).write_bytes(image.read_bytes())
    with Daemon(program, directory=folder) as running:
        client = running.client()
        replies = [
            comparable(client.exchange({"execute": name, "arguments": arguments}))
            for name, arguments in steps
        ]
        client.close()
    return replies


@pytest.mark.parametrize("name", SCENARIOS)
def test_replies_are_those_of_the_reference(name, images, tmp_path):
    # An empty list of options ends the reference.
    steps = [step for step in SCENARIOS[name] if step != reopen()]
    theirs = transcript("qemu-storage-daemon", steps, images, tmp_path / "theirs")
    ours = transcript(OURS, steps, images, tmp_path / "ours")
    for step, mine, expected in zip(steps, ours, theirs):
        assert (step, mine) == (step, expected)
