"""Passwords in names and options of the command line: no message has them, and no list of processes."""
# Packages: qemu-utils libssh-4 libiscsi7 librbd1 libcurl4
import socket
import subprocess
import time
from pathlib import Path

import pytest

from conftest import CAIRN

WORD = "topsecret"
IN_JSON = '{"driver":"iscsi","transport":"tcp","portal":"127.0.0.1:1","target":"iqn.a","lun":1,"user":"me","password" : "%s"}'


@pytest.mark.parametrize(
    "name, shown",
    [
        (f"iscsi://me%{WORD}@127.0.0.1:1/iqn.a/1", "iscsi://me%***@127.0.0.1:1/iqn.a/1"),
        (f"iscsi://me%{WORD}@127.0.0.1:1/iqn.a", "iscsi://me%***@127.0.0.1:1/iqn.a"),
        (f"ssh://me:{WORD}@127.0.0.1:1/a", "ssh://me:***@127.0.0.1:1/a"),
        (f"http://me:{WORD}@127.0.0.1:1/a", "http://me:***@127.0.0.1:1/a"),
        (f"nbd://me:{WORD}@127.0.0.1:1/a", "nbd://me:***@127.0.0.1:1/a"),
        (f"gluster://me:{WORD}@127.0.0.1:1/v/a", "gluster://me:***@127.0.0.1:1/v/a"),
        (f"rbd:p/i:key={WORD}:conf=/none", "rbd:p/i:key=***:conf=/none"),
        (f"rbd:p/i:conf=/none:key={WORD}", "rbd:p/i:conf=/none:key=***"),
        ("json:" + IN_JSON % WORD, '"password" : "***"'),
    ],
)
def test_messages_hide_it(folder, cairn, name, shown):
    for words in (
        ["info", name],
        ["create", "-f", "qcow2", name, "1M"],
        ["create", "-f", "qcow2", "-F", "raw", "-b", name, "overlay.qcow2"],
        ["convert", "-O", "raw", name, "out.raw"],
        ["resize", "-f", "raw", name, "1M"],
    ):
        done = cairn(*words, ok=False)
        assert done.code != 0 and WORD not in done.out + done.err, words
    assert shown in cairn("info", name, ok=False).err


def test_options_hide_it(folder, cairn):
    options = f"driver=iscsi,transport=tcp,portal=127.0.0.1:1,password={WORD}"
    done = cairn("info", "--image-opts", options + ",target=iqn.a,lun=1", ok=False)
    assert "password=***,target=iqn.a" in done.err and WORD not in done.err
    done = cairn("info", "--image-opts", f"driver=raw,file.password={WORD},,{WORD}", ok=False)
    assert done.code == 1 and WORD not in done.err


def test_short_ones_change_nothing_else(folder, cairn):
    done = cairn("info", "ssh://me:a@127.0.0.1:1/data", ok=False)
    assert "'ssh://me:***@127.0.0.1:1/data': Failed to connect to '127.0.0.1:1'" in done.err


def test_other_names_stay(folder, cairn):
    for name in ("ssh://me@[::1]:1/a:b@c", "file:x:key=1", "a:b@c", "http://127.0.0.1:1/x:y@z"):
        assert f"'{name}'" in cairn("info", name, ok=False).err


def test_lists_of_processes(folder):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"ssh://me:{WORD}@127.0.0.1:{silent.getsockname()[1]}/a"
        with subprocess.Popen([CAIRN, "info", url], stderr=subprocess.PIPE) as job:
            taken, _ = silent.accept()
            time.sleep(0.1)
            line = Path(f"/proc/{job.pid}/cmdline").read_text()
            job.terminate()
            assert job.wait(timeout=20) == 143
        taken.close()
    assert WORD not in line and "ssh://me:xxxxxxxxx@" in line
