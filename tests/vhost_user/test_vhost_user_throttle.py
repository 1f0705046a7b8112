"""A disk under limits that change while requests wait for them."""
import struct

from conftest import CAIRN
from qmp import Daemon
from vhost_front_end import BUFFERS, FLUSH_CACHE, OUT, FrontEnd

OURS = CAIRN.parent / "compat" / "qemu-storage-daemon"


def test_other_limits_let_go_what_waits(folder):
    with Daemon(OURS, directory=folder) as daemon:
        client = daemon.client()
        client.command(
            "object-add",
            qom__type="throttle-group",
            id="g",
            limits={"iops-total": 1},
            share="bytes",
            **{"count-flushes": True, "count-discards": True},
        )
        client.command("blockdev-add", driver="null-co", node__name="d", size=1 << 20)
        client.command(
            "blockdev-add",
            driver="throttle",
            node__name="t",
            file="d",
            throttle__group="g",
            weight=3,
        )
        client.command(
            "block-export-add",
            type="vhost-user-blk",
            id="e",
            node__name="t",
            addr={"type": "unix", "path": "vm.sock"},
            writable=True,
        )
        front = FrontEnd(folder / "vm.sock")
        queue = front.queue(size=256)
        heads = []
        for i in range(60):
            at = BUFFERS + i * 1024
            kind = OUT if i % 2 else FLUSH_CACHE
            front.write(at, struct.pack("<IIQ", kind, 0, i))
            data = [(at + 16, 512, False)] if kind == OUT else []
            heads.append(queue.chain([(at, 16, False), *data, (at + 600, 1, True)]))
        queue.offer(*heads)
        queue.answers(1)
        # The others would take a minute.
        client.command("qom-set", path="g", property="limits", value={"iops-total": 0})
        queue.answers(59)
        assert client.command("qom-get", path="g", property="limits")["iops-total"] == 0
        # What waits does not keep the daemon from ending either.
        client.command("qom-set", path="g", property="limits", value={"iops-total": 1})
        queue.offer(*heads)
        queue.answers(1)
        assert daemon.stop() == (0, "")
        front.leave()


def test_what_makes_no_sense_is_refused(folder):
    with Daemon(OURS, directory=folder) as daemon:
        client = daemon.client()
        said = client.error("object-add", qom__type="throttle-group", id="g", share="fairly")[1]
        assert said == "Parameter 'share' accepts requests or bytes, not 'fairly'"
        client.command("object-add", qom__type="throttle-group", id="g")
        client.command("blockdev-add", driver="null-co", node__name="d")
        said = client.error(
            "blockdev-add",
            driver="throttle",
            file="d",
            node__name="t",
            throttle__group="g",
            weight=0,
        )[1]
        assert said == "Parameter 'weight' expects a number from 1 to 1000"
