"""Nodes of the driver replication next to those of qemu-storage-daemon, which cannot begin it."""
import subprocess

import pytest
from conftest import CAIRN
from qmp import LIMIT, Daemon

pytestmark = pytest.mark.any_engine

OURS = CAIRN.parent / "compat" / "qemu-storage-daemon"

NODES = [
    {"mode": "primary", "top-id": "x"},
    {"mode": "secondary"},
    {"mode": "other"},
    {},
    {"mode": "secondary", "top-id": ""},
    {"mode": "secondary", "top-id": "top", "node-name": "s"},
    {"mode": "primary", "node-name": "p"},
]


def said(program, folder):
    folder.mkdir()
    disk = folder / "disk.raw"
    disk.write_bytes(b"content " * 8192)
    words = ["--nbd-server", "addr.type=unix,addr.path=nbd"]
    replies = []
    with Daemon(program, *words, directory=folder) as daemon:
        client = daemon.client()
        file = {"driver": "file", "filename": "disk.raw", "node-name": "f"}
        for options in NODES:
            arguments = {"driver": "replication", "file": dict(file), **options}
            arguments.setdefault("node-name", "n")
            # The reference lets no two nodes write to one file.
            replies.append(client.ask("blockdev-add", **arguments))
            if "return" in replies[-1] and arguments["node-name"] != "p":
                replies.append(client.ask("blockdev-del", node__name=arguments["node-name"]))
        nodes = client.command("query-named-block-nodes", flat=True)
        replies.append([(n["drv"], n["ro"], n["file"]) for n in nodes if n["node-name"] == "p"])
        again = {"driver": "replication", "node-name": "p", "mode": "primary", "file": "f"}
        replies.append(client.ask("blockdev-reopen", options=[again]))
        client.command("block-export-add", type="nbd", id="e", node__name="p", writable=True)
        for command in ("read -P 99 0 1", "write 0 4k", "write -z 0 4k", "flush", "discard 0 4k"):
            words = ["qemu-io", "-f", "raw", "-c", command, f"nbd+unix:///p?socket={folder}/nbd"]
            done = subprocess.run(words, capture_output=True, timeout=LIMIT, text=True)
            replies.append((command, done.returncode, done.stderr))
        client.close()
    replies.append(disk.read_bytes() == b"content " * 8192)
    return replies


def test_before_it_begins(tmp_path):
    assert said(OURS, tmp_path / "ours") == said("qemu-storage-daemon", tmp_path / "reference")
