"""Changes of the graph while a client of an export writes: no request fails, nothing is lost."""
import subprocess

from conftest import CAIRN
from qmp import Daemon

OURS = CAIRN.parent / "compat" / "qemu-storage-daemon"
MIB = 1 << 20
STEP = 16384


def turns(work):
    """Numbers from 0 on until WORK has ended, but some in any case."""
    turn = 0
    while turn < 4 or (turn < 30 and work.poll() is None):
        yield turn
        turn += 1


def do(client, name, **arguments):
    """What the command gives; _ in names of arguments is -."""
    arguments = {key.replace("_", "-"): value for key, value in arguments.items()}
    reply = client.exchange({"execute": name, "arguments": arguments})
    assert "return" in reply, reply
    return reply["return"]


def test_writes_survive_snapshots_and_reopening(tmp_path):
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "base.img", "32M"], check=True
    )
    uri = f"nbd+unix:///base?socket={tmp_path}/nbd.sock"
    with Daemon(OURS, directory=tmp_path) as running:
        client = running.client()
        do(
            client,
            "blockdev-add",
            **{
                "driver": "qcow2",
                "node_name": "base",
                "file": {"driver": "file", "node-name": "base-f", "filename": "base.img"},
            },
        )
        address = {"type": "unix", "data": {"path": "nbd.sock"}}
        do(client, "nbd-server-start", addr=address)
        do(client, "block-export-add", type="nbd", id="e", node_name="base", writable=True)
        bench = subprocess.Popen(
            ["qemu-img", "bench", "-w", "-f", "raw", "-c", str(4 * 32 * MIB // STEP), "-d", "8"]
            + ["-s", str(STEP), "-S", str(STEP), "--pattern", "65", uri],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        top = "base"
        for turn in turns(bench):
            overlay = f"s{turn}"
            do(
                client,
                "blockdev-snapshot-sync",
                **{
                    "node_name": top,
                    "snapshot_file": f"{overlay}.img",
                    "snapshot_node_name": overlay,
                },
            )
            bitmap = {"node": overlay, "name": "b"}
            assert client.exchange({"execute": "block-dirty-bitmap-add", "arguments": bitmap}) == {
                "return": {}
            }
            child = next(
                edge["child"]
                for graph in [do(client, "x-debug-query-block-graph")]
                for edge in graph["edges"]
                if edge["name"] == "file" and named(graph, edge["parent"]) == overlay
            )
            file = named(do(client, "x-debug-query-block-graph"), child)
            options = {
                "driver": "qcow2",
                "node-name": overlay,
                "file": file,
                "backing": top,
                "discard": "unmap",
            }
            do(client, "blockdev-reopen", options=[options])
            top = overlay
        _, complaints = bench.communicate(timeout=120)
        assert (bench.returncode, complaints) == (0, b"")
        read = subprocess.run(
            ["qemu-io", "-r", "-f", "raw", "-c", f"read -P 65 0 {32 * MIB}", uri],
            capture_output=True,
            text=True,
        )
        assert (read.returncode, "Pattern verification failed" in read.stdout) == (0, False), read
        assert client.error("blockdev-del", node__name=top)[1] == f"Node {top} is in use"
        client.close()
        assert running.stop() == (0, "")


def test_writes_survive_snapshots_that_are_streamed(tmp_path):
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "base.img", "32M"], check=True
    )
    uri = f"nbd+unix:///base?socket={tmp_path}/nbd.sock"
    with Daemon(OURS, directory=tmp_path) as running:
        client = running.client()
        file = {"driver": "file", "filename": "base.img"}
        do(client, "blockdev-add", driver="qcow2", node_name="base", file=file)
        do(client, "nbd-server-start", addr={"type": "unix", "data": {"path": "nbd.sock"}})
        do(client, "block-export-add", type="nbd", id="e", node_name="base", writable=True)
        bench = subprocess.Popen(
            ["qemu-img", "bench", "-w", "-f", "raw", "-c", str(4 * 32 * MIB // STEP), "-d", "8"]
            + ["-s", str(STEP), "-S", str(STEP), "--pattern", "66", uri],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        top = "base"
        for turn in turns(bench):
            do(
                client,
                "blockdev-snapshot-sync",
                node_name=top,
                snapshot_file=f"s{turn}.img",
                snapshot_node_name=f"s{turn}",
            )
            top = f"s{turn}"
            do(client, "block-stream", job_id=top, device=top)
            assert "error" not in client.event("BLOCK_JOB_COMPLETED")
        _, complaints = bench.communicate(timeout=120)
        assert (bench.returncode, complaints) == (0, b"")
        read = subprocess.run(
            ["qemu-io", "-r", "-f", "raw", "-c", f"read -P 66 0 {32 * MIB}", uri],
            capture_output=True,
            text=True,
        )
        assert (read.returncode, "Pattern verification failed" in read.stdout) == (0, False), read
        client.close()
        assert running.stop() == (0, "")


def named(graph, number):
    return next(node["name"] for node in graph["nodes"] if node["id"] == number)
