"""What a daemon does with its disks, clients and end; and that no command kills or hangs it."""
import contextlib
import json
import os
import signal
import subprocess

import pytest
from conftest import CAIRN, line_with
from qmp import Daemon

OURS = CAIRN.parent / "compat" / "qemu-storage-daemon"


@pytest.fixture
def daemon(tmp_path):
    """A daemon with a disk of 1 MiB, node "d", in its directory."""
    (tmp_path / "d.raw").write_bytes(bytes(range(256)) * 4096)
    with Daemon(
        OURS, "--blockdev", "file,node-name=d,filename=d.raw", directory=tmp_path
    ) as running:
        yield running
        assert running.stop()[0] == 0


def serve(client, *names, **more):
    client.command("nbd-server-start", addr={"type": "unix", "data": {"path": "nbd.sock"}})
    for name in names:
        client.command("block-export-add", type="nbd", id=name, node__name="d", name=name, **more)


def uri(daemon, name):
    return f"nbd+unix:///{name}?socket={daemon.directory}/nbd.sock"


def test_an_export_is_read_and_written(daemon):
    client = daemon.client()
    serve(client, "e", writable=True)
    subprocess.run(
        ["qemu-io", "-f", "raw", "-c", "write -P 7 4096 4096", uri(daemon, "e")],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    # The server may not have seen yet that the client has gone.
    client.command("block-export-del", id="e", mode="hard")
    assert client.event("BLOCK_EXPORT_DELETED") == {"id": "e"}
    assert (daemon.directory / "d.raw").read_bytes()[4096:8192] == b"\7" * 4096


def attached(daemon, name):
    """A client that has agreed on the export and keeps it."""
    process = subprocess.Popen(
        ["qemu-io", "-r", "-f", "raw", uri(daemon, name)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    process.stdin.write(b"length\n")
    process.stdin.flush()
    assert b"1 MiB" in process.stdout.readline()
    return process


def test_a_client_keeps_its_export_unless_it_is_cut_off(daemon):
    client = daemon.client()
    serve(client, "e", "f")
    reader = attached(daemon, "e")
    assert client.error("block-export-del", id="e")[1] == "export 'e' still in use"
    client.command("block-export-del", id="f")
    assert client.event("BLOCK_EXPORT_DELETED") == {"id": "f"}
    assert client.error("blockdev-del", node__name="d")[1] == "Node d is in use"
    client.command("block-export-del", id="e", mode="hard")
    assert client.event("BLOCK_EXPORT_DELETED") == {"id": "e"}
    assert client.command("query-block-exports") == []
    client.command("blockdev-del", node__name="d")
    reader.communicate()


def test_the_server_stops_with_its_clients(daemon):
    client = daemon.client()
    serve(client, "e")
    reader = attached(daemon, "e")
    client.command("nbd-server-stop")
    assert client.event("BLOCK_EXPORT_DELETED") == {"id": "e"}
    assert not (daemon.directory / "nbd.sock").exists()
    reader.communicate()


def test_the_command_line_does_it_all(tmp_path):
    (tmp_path / "d.raw").write_bytes(b"x" * 65536)
    with Daemon(
        OURS,
        *("--object", "iothread,id=io"),
        *("--blockdev", '{"driver": "file", "node-name": "f", "filename": "d.raw"}'),
        *("--blockdev", "raw,node-name=d,file=f"),
        *("--nbd-server", "addr.type=unix,addr.path=nbd.sock,max-connections=1"),
        *("--export", "nbd,id=e,node-name=d,writable=on,iothread=io"),
        directory=tmp_path,
    ) as running:
        client = running.client()
        info = json.loads(subprocess.check_output(["nbdinfo", "--json", uri(running, "d")]))
        assert info["exports"][0]["export-size"] == 65536
        assert not info["exports"][0]["can_multi_conn"]
        in_use = "object 'io' is in use, can not be deleted"
        assert client.error("object-del", id="io")[1] == in_use
        client.command("block-export-del", id="e", mode="hard")
        client.event("BLOCK_EXPORT_DELETED")
        client.command("object-del", id="io")
        assert running.stop() == (0, "")


def test_a_mount_is_the_disk(daemon):
    point = daemon.directory / "mp"
    point.touch()
    client = daemon.client()
    client.command(
        "block-export-add",
        type="fuse",
        id="m",
        node__name="d",
        mountpoint="mp",
        writable=True,
    )
    assert point.read_bytes() == bytes(range(256)) * 4096
    file = os.open(point, os.O_RDWR)
    os.write(file, b"abc")
    os.fsync(file)
    os.truncate(point, 2 << 20)
    assert point.stat().st_size == 2 << 20
    # The same mount point by other names: an error, and the daemon does not wait for itself.
    (daemon.directory / "link").symlink_to("mp")
    (daemon.directory / "dir").mkdir()
    for name in ("mp", "dir/../mp", "link"):
        error = client.error(
            "block-export-add", type="fuse", id="n", node__name="d", mountpoint=name
        )
        assert error[1] == f"There already is a FUSE export on '{name}'"
    client.command("block-export-del", id="m")
    with pytest.raises(OSError):
        os.read(file, 1)
    with contextlib.suppress(OSError):
        os.close(file)
    assert point.read_bytes() == b""
    disk = (daemon.directory / "d.raw").read_bytes()
    assert disk[:4] == b"abc\3" and len(disk) == 2 << 20


def test_a_node_of_its_own_server_does_not_hang_it(daemon):
    client = daemon.client()
    serve(client, "e")
    client.command(
        "blockdev-add",
        driver="nbd",
        node__name="own",
        export="e",
        read__only=True,
        server={"type": "unix", "path": str(daemon.directory / "nbd.sock")},
    )
    assert [node["node-name"] for node in client.command("query-named-block-nodes")][0] == "own"
    client.command("blockdev-del", node__name="own")


@pytest.mark.parametrize("how", ["quit", "signal"])
def test_the_end_does_not_wait_for_a_budget(daemon, how):
    client = daemon.client()
    client.command("object-add", qom__type="throttle-group", id="t", limits={"bps-total": 1})
    client.command(
        "blockdev-add", driver="throttle", node__name="th", throttle__group="t", file="d"
    )
    client.command("nbd-server-start", addr={"type": "unix", "data": {"path": "nbd.sock"}})
    client.command("block-export-add", type="nbd", id="e", node__name="th", name="e")
    reader = attached(daemon, "e")
    reader.stdin.write(b"read 0 4k\nread 4k 4k\n")
    reader.stdin.flush()
    line_with(reader, b"4096/4096")
    # The first one was let through; the second waits for more than an hour.
    if how == "quit":
        client.send({"execute": "quit"})
        daemon.process.wait(20)
    else:
        daemon.process.send_signal(signal.SIGTERM)
        daemon.process.wait(20)
    reader.kill()
    reader.communicate()


def test_removing_what_somebody_uses_is_refused(daemon):
    client = daemon.client()
    client.command("object-add", qom__type="iothread", id="io")
    serve(client, "e", iothread="io")
    assert "in use" in client.error("object-del", id="io")[1]
    assert client.command("query-block-exports")[0]["id"] == "e"


def test_lists_of_nothing_change_nothing(daemon):
    """The reference dies of both."""
    client = daemon.client()
    client.command("block-dirty-bitmap-add", node="d", name="b")
    client.command("block-dirty-bitmap-merge", node="d", target="b", bitmaps=[])
    client.command("blockdev-reopen", options=[])
    (node,) = client.command("query-named-block-nodes")
    assert (node["node-name"], node["ro"]) == ("d", False)
    assert [one["name"] for one in node["dirty-bitmaps"]] == ["b"]


# --- the schema ---


# Members that the reference has not.
OWN = {"count-discards", "count-flushes", "share", "weight"}


def resolved(entries, name, seen=()):
    """The type of that name without the numbers, as deep as it goes; one that contains itself ends."""
    entry = dict(entries[name])
    if name in seen:
        return "…"
    seen = (*seen, name)
    if not name.isidentifier():
        entry.pop("name")
    for key in ("arg-type", "ret-type", "element-type"):
        if key in entry:
            entry[key] = resolved(entries, entry[key], seen)
    for key in ("members", "variants"):
        if key in entry and entry["meta-type"] != "enum":
            entry[key] = [
                {**one, "type": resolved(entries, one["type"], seen)}
                for one in entry[key]
                if one.get("name") not in OWN
            ]
    return entry


def test_the_schema_is_that_of_the_reference(daemon, tmp_path):
    ours = {entry["name"]: entry for entry in daemon.client().command("query-qmp-schema")}
    with Daemon("qemu-storage-daemon") as reference:
        theirs = {entry["name"]: entry for entry in reference.client().command("query-qmp-schema")}
    shown = [name for name, entry in ours.items() if entry["meta-type"] in ("command", "event")]
    assert len(shown) > 25
    commands = {one["name"] for one in daemon.client().command("query-commands")}
    assert commands == {name for name in shown if ours[name]["meta-type"] == "command"}
    for name in shown:
        assert resolved(ours, name) == resolved(theirs, name), name
