"""Images over nodes of raw that have names."""
import json

from job_disks import MIB, both, pair, run


def test_an_image_grows_over_one(both):
    """While it is made, and while it is written."""
    for one in both:
        path = one.path("new")
        with open(path, "wb"):
            pass
        nodes = [
            {"driver": "file", "filename": path, "node-name": "new-f"},
            {"driver": "raw", "node-name": "raw", "file": "new-f"},
        ]
        for node in nodes:
            one.ask("blockdev-add", **node)
        options = {"driver": "qcow2", "file": "raw", "size": MIB}
        one.ask("blockdev-create", job_id="c", options=options)
        one.until("concluded c")
        assert "error" not in json.dumps(one.ask("query-jobs"))
        one.ask("job-dismiss", id="c")
        one.ask("blockdev-add", **{"driver": "qcow2", "node-name": "image", "file": "raw"})
        one.names += ["new-f", "raw", "image"]
        socket = one.directory / "nbd.sock"
        one.ask("nbd-server-start", addr={"type": "unix", "data": {"path": str(socket)}})
        one.ask("block-export-add", type="nbd", id="e", node_name="image", writable=True)
        url = f"nbd+unix:///image?socket={socket}"
        run("qemu-io", "-f", "raw", *("-c", "write -P 3 0 1M"), *("-c", "read -P 3 0 1M"), url)
        one.ask("nbd-server-stop")
