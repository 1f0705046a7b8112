"""`cairn daemon --config`: what a file says is done, and what is wrong with it is said with its line."""
import subprocess

import pytest
from conftest import CAIRN
from qmp import LIMIT, Client, Daemon, wait_for

pytestmark = pytest.mark.any_engine

OURS = [CAIRN, "daemon"]
COMPAT = CAIRN.parent / "compat" / "qemu-storage-daemon"

WHOLE = """\
# A disk, exported over NBD.
[object "key"]
  qom-type = "secret"
  data = "a,b"

[blockdev "disk"]
  driver = "raw"
  file.driver = "file"
  file.filename = "d,1.raw"

[nbd-server]
  addr.type = "unix"
  addr.path = "nbd.sock"

[export "e"]
  type = "nbd"
  node-name = "disk"
  name = "disk"
  writable = "on"

[chardev "qmp"]
  backend = "socket"
  path = "qmp.sock"
  server = "on"
  wait = "off"

[monitor]
  chardev = "qmp"
"""


def run(directory, text, *options):
    """Code and standard error of a daemon that does not get to run."""
    (directory / "c.conf").write_text(text)
    done = subprocess.run(
        [*OURS, *options, "--config", "c.conf"],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_sections_are_options(tmp_path):
    (tmp_path / "d,1.raw").write_bytes(bytes(65536))
    (tmp_path / "c.conf").write_text(WHOLE)
    words = ["--config", "c.conf"]
    with Daemon(OURS, *words, directory=tmp_path, monitor=False) as daemon:
        wait_for((tmp_path / "qmp.sock").exists)
        client = Client(tmp_path / "qmp.sock")
        assert [one["id"] for one in client.command("query-block-exports")] == ["e"]
        uri = f"nbd+unix:///disk?socket={tmp_path}/nbd.sock"
        subprocess.run(
            ["qemu-io", "-f", "raw", "-c", "write -P 7 0 512", uri],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=LIMIT,
        )
        client.close()
        assert daemon.stop() == (0, "")
    assert (tmp_path / "d,1.raw").read_bytes()[:513] == b"\7" * 512 + b"\0"


def test_options_beside_the_file_keep_their_order(tmp_path):
    (tmp_path / "d.raw").write_bytes(bytes(512))
    (tmp_path / "c.conf").write_text(
        '[blockdev "top"]\ndriver = "raw"\nfile = "low"\n[monitor "m"]\nchardev = "qmp"\n'
    )
    words = ["--blockdev", "file,node-name=low,filename=d.raw", "--config", "c.conf"]
    words = ["--chardev", "socket,id=qmp,path=qmp.sock,server=on,wait=off", *words]
    with Daemon(OURS, *words, directory=tmp_path, monitor=False) as daemon:
        wait_for((tmp_path / "qmp.sock").exists)
        client = Client(tmp_path / "qmp.sock")
        nodes = client.command("query-named-block-nodes")
        assert sorted(node["node-name"] for node in nodes) == ["low", "top"]
        client.close()
        assert daemon.stop() == (0, "")


WRONG = {
    "group": ('\n[disk "d"]\n', "c.conf:2: [disk \"d\"]: There is no option group 'disk'"),
    "no name": ('[blockdev]\ndriver = "raw"\n', "c.conf:1: [blockdev]: The name is missing"),
    "a name": ('[nbd-server "n"]\n', 'c.conf:1: [nbd-server "n"]: A section of this group has no'),
    "twice": (
        '[object "o"]\nqom-type = "secret"\ndata = "1"\n' * 2,
        'c.conf:4: [object "o"]: There is a section of this name already',
    ),
    "both names": (
        '[blockdev "d"]\nnode-name = "e"\n',
        "The section's name is its 'node-name': remove that line",
    ),
    "key": (
        '[blockdev "d"]\ndriver = "raw"\nfile = "f"\nsize_ = "1"\n',
        "c.conf:1: [blockdev \"d\"]: Parameter 'size_' is unexpected",
    ),
    "value": (
        '[export "e"]\ntype = "nbd"\nnode-name = "d"\nwritable = "perhaps"\n',
        "c.conf:1: [export \"e\"]: Parameter 'writable' expects 'on' or 'off'",
    ),
    "a second word": ('[monitor]\nx,y = "1"\n', "Invalid parameter 'x,y'"),
    "JSON": ('[nbd-server]\n{ = "1"\n', "Invalid parameter '{'"),
    "chardev": ('[chardev "c"]\nbackend = "pigeon"\n', "'pigeon' is not a valid char driver name"),
    "monitor": ("[monitor]\n", "c.conf:1: [monitor]: Parameter 'chardev' is missing"),
    "help": (
        '[object "o"]\nqom-type = "secret"\nhelp = "1"\n',
        "c.conf:1: [object \"o\"]: Parameter 'help' is unexpected",
    ),
    "help on groups": (
        '[object "o"]\nqom-type = "help"\n',
        "c.conf:1: [object \"o\"]: Parameter 'qom-type' does not accept value 'help'",
    ),
    "syntax": ('[monitor]\nchardev = "c\n', "c.conf:2: a value in double quotes is missing"),
    "no section": ('chardev = "c"\n', "c.conf:1: no group defined"),
    "zeros": ("\0" * 4096, "c.conf:1: "),
}


@pytest.mark.parametrize("options", [[], ["--check-config"]], ids=["run", "check"])
@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_with_its_line(tmp_path, case, options):
    text, message = WRONG[case]
    code, error = run(tmp_path, text, *options)
    assert code == 1
    assert message in error, error


def test_a_check_opens_nothing(tmp_path):
    assert run(tmp_path, WHOLE, "--check-config") == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["c.conf"]
    code, error = run(tmp_path, WHOLE)
    assert code == 1
    assert error.startswith("cairn: c.conf:6: [blockdev \"disk\"]: Could not open 'd,1.raw'"), error


def test_a_check_looks_at_options_too(tmp_path):
    code, error = run(tmp_path, WHOLE, "--check-config", "--blockdev", "raw,node-name=d")
    assert code == 1
    assert "--blockdev raw,node-name=d: Parameter 'file' is missing" in error


@pytest.mark.parametrize("path", ["missing", ".", "/dev/zero"])
def test_files_that_cannot_be_read(tmp_path, path):
    done = subprocess.run(
        [*OURS, "--config", path], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 1
    assert f"'{path}'" in done.stderr


def test_the_compatible_name_has_no_configuration_file(tmp_path):
    done = subprocess.run(
        [COMPAT, "--config", "c.conf"], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 1
    assert "unrecognized option '--config'" in done.stderr
