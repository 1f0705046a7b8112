"""What Windows does its own way: names, sparse files, locks, and connections."""
import socket
import subprocess

import pytest

from conftest import CAIRN, line_with, sparse_disk
from wine import linux, start_windows, windows

pytestmark = [pytest.mark.any_engine, pytest.mark.slow]
MIB = 1 << 20


def free_port():
    for port in range(20400, 20900):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port
    raise AssertionError("no port is free")


def end(process):
    """Ends a server, below wine or not, and waits for it."""
    process.terminate()
    process.wait(30)
    process.stdout.close()


def test_names_are_utf8(tmp_path):
    name = "Größe € 磁盘 𝄞.qcow2"
    windows("create", "-q", "-f", "qcow2", name, "3M", cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert linux("info", "--output", "json", name, cwd=tmp_path).json()["virtual-size"] == 3 * MIB
    out = windows("info", name, cwd=tmp_path).out
    assert name in out


def test_long_paths(tmp_path):
    folder = tmp_path
    for _ in range(8):
        folder = folder / ("directory-" * 5)
        folder.mkdir()
    image = folder / "disk.qcow2"
    assert len(str(image)) > 400
    windows("create", "-q", "-f", "qcow2", image, "3M")
    assert windows("info", "--output", "json", image).json()["virtual-size"] == 3 * MIB
    linux("check", "-q", image)


def test_images_stay_small_where_files_can_be_sparse_and_are_right_where_not(tmp_path):
    """Wine refuses to make files sparse: zeroes are written then, or the file ends with them by its length."""
    sparse_disk(tmp_path / "source.raw", 64 * MIB)
    windows("convert", "-q", "source.raw", "-O", "raw", "copy.raw", cwd=tmp_path)
    linux("compare", "source.raw", "copy.raw", cwd=tmp_path)
    windows(
        "io",
        "-f",
        "raw",
        "-c",
        "discard 1M 1M",
        "-c",
        "write -z 40M 512k",
        "copy.raw",
        cwd=tmp_path,
    )
    linux("io", "-f", "raw", "-c", "read -P 0 40M 512k", "copy.raw", cwd=tmp_path)


def test_two_programs_do_not_write_one_image(tmp_path):
    windows("create", "-q", "-f", "qcow2", "disk.qcow2", "8M", cwd=tmp_path)
    port = free_port()
    server = start_windows("serve", "-p", str(port), "disk.qcow2", cwd=tmp_path)
    try:
        line_with(server, "nbd://")
        refused = windows("resize", "disk.qcow2", "9M", ok=False, cwd=tmp_path)
        assert refused.code != 0 and "lock" in refused.err
        assert windows("info", "-U", "disk.qcow2", cwd=tmp_path).code == 0
    finally:
        end(server)
    windows("resize", "-q", "disk.qcow2", "9M", cwd=tmp_path)


def test_served_to_linux_and_opened_from_it(tmp_path):
    sparse_disk(tmp_path / "source.raw", 8 * MIB)
    port = free_port()
    server = start_windows("serve", "-p", str(port), "-f", "raw", "source.raw", cwd=tmp_path)
    try:
        line_with(server, "nbd://")
        linux("compare", f"nbd://127.0.0.1:{port}", "source.raw", cwd=tmp_path)
        linux("io", "-f", "raw", "-c", "write -P 9 4M 64k", f"nbd://127.0.0.1:{port}")
    finally:
        end(server)
    linux("io", "-f", "raw", "-c", "read -P 9 4M 64k", "source.raw", cwd=tmp_path)
    # Another program may have taken the port meanwhile.
    port = free_port()
    server = subprocess.Popen(
        [CAIRN, "serve", "-p", str(port), "-f", "raw", "source.raw"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line_with(server, "nbd://")
        windows(
            "convert", "-q", f"nbd://127.0.0.1:{port}", "-O", "qcow2", "copy.qcow2", cwd=tmp_path
        )
        windows("io", "-f", "raw", "-c", "write -P 5 6M 64k", f"nbd://127.0.0.1:{port}")
    finally:
        end(server)
    linux("io", "-f", "raw", "-c", "read -P 5 6M 64k", "source.raw", cwd=tmp_path)
    linux("io", "-c", "read -P 9 4M 64k", "copy.qcow2", cwd=tmp_path)


def test_names_that_no_file_has_are_refused_with_the_reason(tmp_path):
    for name, why in (
        ("aux.qcow2", "keeps the name AUX for a device"),
        ("Com1 .vhd", "keeps the name COM1"),
        ("nul.raw", "keeps the name NUL"),
        ("what?.qcow2", "allows no '?'"),
        ("a<b>.qcow2", "allows no '<'"),
        (".\\disk.qcow2:stream", "allows no ':'"),
        ("n" * 256, "255 characters"),
    ):
        refused = windows("create", "-q", "-f", "raw", name, "1M", ok=False, cwd=tmp_path)
        assert refused.code == 1 and why in refused.err, (name, refused.err)
    assert "allows no '*'" in windows("info", "*.qcow2", ok=False, cwd=tmp_path).err
    assert list(tmp_path.iterdir()) == []
    for name in ("auxiliary.raw", "n" * 250):
        windows("create", "-q", "-f", "raw", name, "1M", cwd=tmp_path)
    assert windows("info", "NUL", cwd=tmp_path).code == 0


def test_help_is_asked_for_as_on_windows():
    assert windows("/?").out == windows("--help").out
    assert windows("create", "/?").out == windows("create", "--help").out


def test_what_is_left_out_says_so(tmp_path):
    for words, text in (
        (("mount", "a", "b"), "on Linux only"),
        (("daemon",), "on Linux only"),
        (("ctl",), "on Linux only"),
        (("info", "iscsi://host/target/0"), "iscsi"),
    ):
        done = windows(*words, ok=False, cwd=tmp_path)
        assert done.code == 1 and text in done.err, done.err
