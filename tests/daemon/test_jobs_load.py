"""Mirrors that move a disk from file to file under the writes of a client: no request fails."""
import subprocess

from conftest import CAIRN
from job_disks import Disks
from qmp import Daemon

DAEMON = CAIRN.parent / "compat" / "qemu-storage-daemon"


def test_switched_under_writes(tmp_path):
    with Daemon(DAEMON) as daemon:
        disks = Disks(daemon, tmp_path / "disks")
        path = str(tmp_path / "nbd.sock")
        disks.ask("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
        disks.ask("block-export-add", type="nbd", id="e", node_name="top", writable=True)
        writes = ["-c", "30000", "-d", "8", "-s", "4096", "-S", "69632", "--pattern=7"]
        client = subprocess.Popen(
            [
                "qemu-img",
                "bench",
                "-q",
                "-w",
                *writes,
                "-f",
                "raw",
                f"nbd+unix:///top?socket={path}",
            ]
        )
        source, rounds = "top", 0
        while client.poll() is None or rounds < 4:
            target = "target2" if source == "target" else "target"
            mode = "write-blocking" if rounds % 2 else "background"
            arguments = {"device": source, "target": target, "sync": "full", "copy_mode": mode}
            disks.said.clear()
            assert "return" in disks.ask("blockdev-mirror", job_id="m", **arguments)
            disks.until_after('BLOCK_JOB_READY m {"type": "mirror"}')
            disks.ask("job-complete", id="m")
            disks.until_after("null m")
            assert not [line for line in disks.said if "error" in line.lower()]
            source, rounds = target, rounds + 1
        assert client.returncode == 0
        exports = disks.ask("query-block-exports")["return"]
        assert [export["node-name"] for export in exports] == [source]
        assert daemon.stop() == (0, "")
        with open(disks.path(source), "rb") as file:
            # The first write is at the begin, whatever file was in use then.
            assert file.read(4096) == b"\7" * 4096
