"""Command lines that bash and zsh complete with what `cairn completion` prints."""
import os
import subprocess

import pytest
from conftest import CAIRN
from qmp import Daemon

pytestmark = [pytest.mark.any_engine, pytest.mark.words]
OURS = CAIRN.parent / "compat" / "qemu-storage-daemon"
# The last word is the one that is completed; "=" is a word of its own.
ASK = """
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_cairn
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(params=["bash", "zsh"])
def shell(request, folder, cairn):
    (folder / "script").write_text(cairn("completion", request.param).out)
    begin = "source ./script\n" + ("emulate sh\n" if request.param == "zsh" else "")
    words = [request.param, "-f" if request.param == "zsh" else "--norc", "-c", begin + ASK, "-"]
    path = f"{CAIRN.parent}:{os.environ['PATH']}"

    def ask(*line):
        done = subprocess.run(
            [*words, "cairn", *line],
            env={"PATH": path, "HOME": str(folder)},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0 and done.stderr == "", done.stderr
        # zsh itself leaves out what begins with something else.
        return [one for one in done.stdout.split() if one.startswith(line[-1].lstrip("="))]

    return ask


def test_verbs_options_and_values(shell):
    assert shell("com") == ["commit", "compact", "compare", "completion"]
    assert shell("convert", "--veri") == ["--verify"]
    assert shell("convert", "-O", "v") == ["vdi", "vhdx", "vmdk", "vpc"]
    assert "dmg" in shell("info", "-f", "") and "dmg" not in shell("convert", "-O", "")
    assert shell("map", "--output", "=", "j") == ["json"]
    assert shell("map", "--output", "=") == ["human", "json"]
    assert shell("daemon", "--chard") == ["--chardev"]
    assert shell("help", "comm") == ["commit"]
    assert shell("--vers") == ["--version"]
    # Names of files are the shell's own affair.
    assert shell("info", "") == shell("info", "--object", "") == []


def test_words_of_verbs_that_have_actions(shell):
    assert shell("nvme", "") == ["list", "bind", "unbind"]
    assert shell("completion", "") == ["bash", "zsh"]
    assert shell("ctl", "--socket", "x", "re") == ["remove", "resize", "restart"]
    assert shell("ctl", "--socket", "=", "x", "--output", "json", "add", "") == [
        *("node", "export", "object")
    ]
    assert shell("ctl", "job", "--socket", "x", "c") == ["cancel", "complete"]


def test_what_a_daemon_has(shell, tmp_path):
    # Nothing, where none answers.
    assert shell("ctl", "--socket", "none", "remove", "node", "") == []
    (tmp_path / "d.raw").write_bytes(b"x" * 65536)
    with Daemon(OURS, directory=tmp_path) as daemon:
        client = daemon.client()
        file = {"driver": "file", "filename": "d.raw", "node-name": "bytes"}
        client.command("blockdev-add", driver="raw", node__name="disk", file=file)
        client.close()
        assert shell("ctl", "--socket", daemon.path, "resize", "d") == ["disk"]
        assert sorted(shell("ctl", "--socket", daemon.path, "remove", "node", "")) == [
            *("bytes", "disk")
        ]


def test_other_shells_are_refused(cairn):
    for words in ([], ["fish"], ["bash", "zsh"]):
        done = cairn("completion", *words, ok=False)
        assert done.code == 1 and "Expecting bash or zsh" in done.err
    assert cairn("completion", "bash", "--output", "json").json()["script"].startswith("_cairn")
