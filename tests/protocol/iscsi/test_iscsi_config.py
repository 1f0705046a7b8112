"""-readconfig and -iscsi: logins and initiator names as QEMU's emulator takes them."""
# Packages: tgt libiscsi7
import json
import subprocess
import time

import pytest

from conftest import CAIRN
from support.tgt import Tgt

pytestmark = pytest.mark.any_engine
CHAP = "iqn.qemu.chap"
LOGIN = 'user = "me"\npassword = "mypassword12"\n'


@pytest.fixture(scope="module")
def tgt(tmp_path_factory):
    target = Tgt(tmp_path_factory.mktemp("tgt"), 4 << 20)
    yield target
    target.stop()


@pytest.fixture
def config(folder):
    def write(text):
        (folder / "c.cfg").write_text(text)
        return folder / "c.cfg"

    return write


def test_the_example_of_the_manual(tgt, cairn, ours, config):
    """The section of qemu-block-drivers(7), as it stands there, and the name and digest that it asks for."""
    file = config(
        f"""[iscsi]
  user = "me"
  password = "mypassword12"
  initiator-name = "iqn.2024-01.org.example:config"
  # header digest is one of CRC32C|CRC32C-NONE|NONE-CRC32C|NONE
  header-digest = "CRC32C"
"""
    )
    for tool in cairn, ours:
        said = tool("-readconfig", file, "info", tgt.url(1, CHAP))
        assert "4 MiB" in said.out and "mypassword" not in said.out + said.err
    assert cairn("info", tgt.url(1, CHAP), ok=False).code == 1
    job = subprocess.Popen(
        [CAIRN, "-readconfig", file, "io", tgt.url(1, CHAP)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    until = time.monotonic() + 20
    while "Initiator: iqn.2024-01.org.example:config" not in tgt.admin(
        "--op", "show", "--mode", "target"
    ):
        assert job.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    job.communicate(b"quit\n", timeout=20)


@pytest.mark.parametrize(
    "text",
    [
        f'[iscsi "{CHAP}"]\n{LOGIN}',
        f'[iscsi "iqn.other"]\nuser = "x"\npassword = "y"\n[iscsi "{CHAP}"]\n{LOGIN}',
        f'[iscsi "iqn.other"]\n{LOGIN}[iscsi "iqn.third"]\nuser = "x"\npassword = "y"\n',
        f'[iscsi]\r\nuser="x"\r\nuser="me"   more\r\n\tpassword = "mypassword12"\r\n',
        f'# a comment\n \n[iscsi]\n{LOGIN}[drive "d"]\nfile = "x"\n',
        '[object "s"]\nqom-type = "secret"\ndata = "mypassword12"\n'
        '[iscsi]\nuser = "me"\npassword-secret = "s"\n',
    ],
    ids=["named", "named_second", "first", "spaces", "machine", "secret"],
)
def test_sections(tgt, cairn, config, text):
    said = cairn("-readconfig", config(text), "info", tgt.url(1, CHAP))
    assert "4 MiB" in said.out
    assert ("for a machine" in said.err) == ("drive" in text)


def test_precedence(tgt, cairn, config, monkeypatch):
    """Options of the disk, then the file, then the URL, then the environment."""
    good, bad = config(f"[iscsi]\n{LOGIN}"), '[iscsi]\nuser = "no"\npassword = "wrongpassword"\n'
    wrong_url = tgt.url(1, CHAP).replace("//", "//no%wrongpassword@")
    assert "4 MiB" in cairn("-readconfig", good, "info", wrong_url).out
    bad = config(bad)
    right_url = tgt.url(1, CHAP).replace("//", "//me%mypassword12@")
    assert cairn("-readconfig", bad, "info", right_url, ok=False).code == 1
    login = {"user": "me", "password-secret": "s"}
    file = {"driver": "iscsi", "transport": "tcp", "portal": f"127.0.0.1:{tgt.port}"}
    name = "json:" + json.dumps(
        {"driver": "raw", "file": {**file, "target": CHAP, "lun": 1, **login}}
    )
    secret = ["--object", "secret,id=s,data=mypassword12"]
    assert "4 MiB" in cairn("-readconfig", bad, "info", *secret, name).out
    monkeypatch.setenv("LIBISCSI_CHAP_USERNAME", "me")
    monkeypatch.setenv("LIBISCSI_CHAP_PASSWORD", "mypassword12")
    assert cairn("-readconfig", bad, "info", tgt.url(1, CHAP), ok=False).code == 1
    # Halves of two logins make none.
    half = config('[iscsi]\nuser = "me"\n')
    failed = cairn("-readconfig", half, "info", tgt.url(1, CHAP), ok=False)
    assert "CHAP username specified but no password was given" in failed.err
    half = config('[iscsi]\npassword = "other"\n')
    assert "4 MiB" in cairn("-readconfig", half, "info", tgt.url(1, CHAP)).out


def test_on_the_command_line(tgt, cairn):
    login = "user=me,password=mypassword12"
    assert "4 MiB" in cairn("-iscsi", login, "info", tgt.url(1, CHAP)).out
    named = ["-iscsi", "user=x,password=y", "--iscsi", f"id={CHAP},{login}"]
    assert "4 MiB" in cairn(*named, "info", tgt.url(1, CHAP)).out


@pytest.mark.parametrize(
    "text, words",
    [
        ('user = "me"\n', "c.cfg:1: no group defined"),
        ('[iscsi]\nfoo = "x"\n', "Invalid parameter 'foo'"),
        ("[nope]\n", "There is no option group 'nope'"),
        ('[iscsi]\ntimeout = "abc"\n', "Parameter 'timeout' expects a number"),
        ("[iscsi]\nuser = me\n", "c.cfg:2: a value in double quotes is missing"),
        ("[iscsi]\nuser\n", "c.cfg:2: parse error"),
        ("[iscsi\n", "c.cfg:1: a value in double quotes is missing"),
        ('[iscsi]\nuser = "' + "x" * 1024 + '"\n', "longer than 1023"),
        ('[iscsi]\nheader-digest = "CRC"\n', "Invalid header-digest setting : crc"),
    ],
    ids=["no_group", "key", "group", "number", "quotes", "value", "header", "long", "digest"],
)
def test_mistakes(tgt, cairn, config, text, words):
    failed = cairn("-readconfig", config(text), "info", tgt.url(1), ok=False)
    assert failed.code == 1 and words in failed.err


def test_no_such_file(cairn):
    failed = cairn("-readconfig", "none", "info", "x", ok=False)
    assert (
        "-readconfig none: Could not open 'none': No such file or directory" in failed.err
        and failed.code == 1
    )
    assert "missing argument" in cairn("-iscsi", ok=False).err
