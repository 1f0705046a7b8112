"""What a quorum reports about its disks, next to qemu-storage-daemon, and how often."""
import json
import time

import nbd
import pytest
from job_disks import MIB, both, pair
from qmp import wait_for

SIZE = MIB


class Quorum:
    """A quorum of three disks in one daemon, one of them behind a fault, and a client of its export."""

    def __init__(self, one, name, threshold, rules=(), contents=(1, 1, 1)):
        self.one = one
        # Reports of disks of the same name in another test would hold back those of this one.
        one.ask("nbd-server-start", addr={"type": "unix", "data": {"path": self.path()}})
        children = []
        for number, byte in enumerate(contents):
            path = one.path(f"disk{number}")
            with open(path, "wb") as file:
                file.write(bytes([byte]) * SIZE)
            disk = {"driver": "file", "filename": path}
            if number == 1 and rules:
                disk = {"driver": "blkdebug", "image": disk, "inject-error": list(rules)}
            children.append({**disk, "node-name": f"{name}-{number}"})
        options = {"driver": "quorum", "vote_threshold": threshold, "children": children}
        assert one.ask("blockdev-add", node_name="set", **options) == {"return": {}}
        export = {"type": "nbd", "id": "e", "node_name": "set", "writable": True}
        assert one.ask("block-export-add", **export) == {"return": {}}
        self.client = nbd.NBD()
        self.client.set_export_name("set")
        # A reply that fails half-way ends the connection of the reference.
        self.client.set_request_structured_replies(False)
        self.client.connect_unix(self.path())

    def path(self):
        return str(self.one.directory / "nbd.sock")

    def attempt(self, request):
        """The error that the client gets, or None."""
        try:
            request(self.client)
        except nbd.Error as error:
            return error.errno
        return None

    def events(self, count):
        """The next COUNT reports."""
        found = []
        while len(found) < count:
            message = self.one.client.receive()
            if message["event"].startswith("QUORUM"):
                found.append(json.dumps([message["event"], message["data"]], sort_keys=True))
        # One that is held back, as there was another one a moment ago, comes late.
        return sorted(found)

    def close(self):
        del self.client
        self.one.ask("block-export-del", id="e", mode="hard")
        self.one.ask("nbd-server-stop")
        # The export goes when its requests have ended.
        wait_for(lambda: "return" in self.one.ask("blockdev-del", node_name="set"))


def fails(kind):
    return {"event": "none", "iotype": kind, "errno": 5, "once": True}


REQUESTS = {
    "read": lambda client: client.pread(4096, 8192),
    "write": lambda client: client.pwrite(b"\1" * 4096, 8192),
    "write-zeroes": lambda client: client.zero(65536, 131072),
}


@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("threshold", [2, 3])
def test_a_disk_fails(both, request_name, threshold):
    """It is named; so is the set, where too few are left."""

    def steps(one):
        quorum = Quorum(one, f"{request_name}{threshold}", threshold, [fails(request_name)])
        error = quorum.attempt(REQUESTS[request_name])
        events = quorum.events(2 if threshold == 3 else 1)
        quorum.close()
        return error, events

    ours, theirs = (steps(one) for one in both)
    assert ours == theirs


@pytest.mark.parametrize("contents", [(1, 2, 1), (1, 2, 3)], ids=["one", "all"])
def test_disks_differ(both, contents):
    def steps(one):
        name = "differ" + "".join(map(str, contents))
        quorum = Quorum(one, name, 2, contents=contents)
        error = quorum.attempt(lambda client: client.pread(1000, 1000))
        events = quorum.events(1)
        quorum.close()
        return error, events

    ours, theirs = (steps(one) for one in both)
    assert ours == theirs


def test_one_report_a_second(both):
    """The first comes at once, then the last of those that came meanwhile."""

    def steps(one):
        quorum = Quorum(one, "often", 2, contents=(1, 2, 1))
        begin = time.monotonic()
        for number in range(50):
            quorum.attempt(lambda client: client.pread(512, number * 512))
        events = []
        while not events or '"sector-num": 49' not in events[-1]:
            events += quorum.events(1)
        seconds = time.monotonic() - begin
        quorum.close()
        # Begun seconds, and the last event.
        assert len(events) <= seconds + 2
        assert '"sector-num": 0' in events[0]
        return seconds

    for one in both:
        assert steps(one) >= 0.5
