"""`cairn daemon --log`: what happens, as lines of JSON."""
import json
import re
import signal
import subprocess

from conftest import CAIRN
from qmp import LIMIT, Daemon, wait_for

OURS = [CAIRN, "daemon"]


def events(path):
    """The lines; each is an object with the members that all have."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["time"])
        assert line["level"] in ("info", "warning", "error")
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    return lines


def pick(lines, name):
    return [
        {key: value for key, value in line.items() if key not in ("time", "event")}
        for line in lines
        if line["event"] == name
    ]


def use(directory, *commands):
    words = [word for command in commands for word in ("-c", command)]
    uri = f"nbd+unix:///disk?socket={directory}/nbd.sock"
    done = subprocess.run(
        ["qemu-io", "-r", "-f", "raw", *words, uri], capture_output=True, text=True, timeout=LIMIT
    )
    return done.stdout + done.stderr


def test_starts_clients_commands_jobs_and_ends(tmp_path):
    (tmp_path / "d.raw").write_bytes(bytes(65536))
    log = tmp_path / "log"
    words = ["--log", "log", "--object", "secret,id=s,data=hidden"]
    words += ["--blockdev", "file,node-name=d,filename=d.raw"]
    words += ["--nbd-server", "addr.type=unix,addr.path=nbd.sock"]
    words += ["--export", "nbd,id=e,node-name=d,name=disk"]
    with Daemon(OURS, *words, directory=tmp_path) as daemon:
        client = daemon.client()
        assert "read 512/512" in use(tmp_path, "read 0 512")
        wait_for(lambda: pick(events(log), "client-left"))
        client.command("query-jobs")
        client.error("blockdev-del", node__name="none")
        client.command("blockdev-add", driver="null-co", node__name="n", size=65536)
        client.command("blockdev-mirror", job__id="j", device="d", target="n", sync="full")
        client.event("BLOCK_JOB_READY")
        client.command("job-cancel", id="j")
        wait_for(lambda: client.command("query-jobs") == [])
        client.command("block-export-del", id="e")
        client.close()
        assert daemon.stop() == (0, "")
    lines = events(log)
    assert "hidden" not in log.read_text()
    assert {"level": "info", "command": "object-add", "id": "s"} in pick(lines, "command")
    assert {"level": "info", "command": "blockdev-add", "node": "d"} in pick(lines, "command")
    mirror = {"level": "info", "command": "blockdev-mirror", "job": "j", "device": "d"}
    assert mirror in pick(lines, "command")
    assert not [one for one in pick(lines, "command") if one["command"].startswith("query-")]
    (failed,) = pick(lines, "command-failed")
    assert failed["level"] == "warning" and failed["node"] == "none" and "none" in failed["message"]
    for name in ("client-came", "client-left"):
        assert [one["export-name"] for one in pick(lines, name)] == ["disk"], name
    states = [one["status"] for one in pick(lines, "job-status-change")]
    assert states[:2] == ["created", "running"] and states[-1] == "null"
    assert {one["job"] for one in pick(lines, "job-status-change")} == {"j"}
    assert pick(lines, "block-export-deleted") == [{"level": "info", "export": "e"}]
    names = [line["event"] for line in lines]
    assert names.count("started") == 1 and names[-2:] == ["stopping", "stopped"]


def test_failed_requests_are_seldom_and_counted(tmp_path):
    (tmp_path / "d.raw").write_bytes(bytes(65536))
    words = ["--log", "log", "--blockdev", "file,node-name=f,filename=d.raw"]
    words += ["--blockdev", "blkdebug,node-name=bad,image=f,inject-error.0.event=read_aio"]
    words += ["--blockdev", "raw,node-name=top,file=bad"]
    words += ["--nbd-server", "addr.type=unix,addr.path=nbd.sock"]
    words += ["--export", "nbd,id=e,node-name=top,name=disk"]
    with Daemon(OURS, *words, directory=tmp_path) as daemon:
        wait_for((tmp_path / "nbd.sock").exists)
        wait_for(lambda: "started" in (tmp_path / "log").read_text())
        text = use(tmp_path, *["read 1024 512"] * 20)
        assert text.count("Input/output error") == 20
        assert daemon.stop()[0] == 0
    failed = pick(events(tmp_path / "log"), "request-failed")
    first = failed[0]
    assert (first["level"], first["export"], first["request"]) == ("error", "e", "read")
    assert first["offset"] == 1024 and "Input/output error" in first["message"]
    # What is left out after the last line is not counted by one.
    assert 1 <= len(failed) <= sum(1 + one.get("more", 0) for one in failed) <= 20


def test_it_appends_and_goes_to_standard_error(tmp_path):
    (tmp_path / "log").write_text('{"time": "x"}\n')
    for where in ("log", "-"):
        with Daemon(OURS, "--log", where, directory=tmp_path) as daemon:
            daemon.client().close()
            code, error = daemon.stop(signal.SIGTERM)
            assert code == 0
    written = (tmp_path / "log").read_text().splitlines()
    assert written[0] == '{"time": "x"}' and '"stopped"' in written[-1]
    assert [json.loads(line)["event"] for line in error.splitlines()][-1] == "stopped"
    done = subprocess.run(
        [*OURS, "--log", "no/where"], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 1 and "Could not open the log 'no/where'" in done.stderr
