"""-o compression_level of convert."""
import pytest


@pytest.fixture
def disk(folder):
    words = b"".join(
        b"line %d of a log that says %x and more\n" % (i, i * i) for i in range(200000)
    )
    (folder / "a.raw").write_bytes(words[: 4 << 20])
    return folder


@pytest.mark.parametrize("kind,least,most", [("zlib", 1, 12), ("zstd", 1, 22)])
def test_levels_differ_in_size_and_nothing_else(disk, cairn, qemu, kind, least, most):
    sizes = []
    for level in (least, (least + most) // 2, most):
        cairn(
            "convert",
            "--overwrite",
            "-c",
            "-o",
            f"compression_type={kind},compression_level={level}",
            "a.raw",
            "t.qcow2",
        )
        sizes.append((disk / "t.qcow2").stat().st_size)
        qemu("compare", "a.raw", "t.qcow2")
        qemu("check", "t.qcow2")
        assert "level" not in qemu("info", "--output=json", "t.qcow2").out
    assert sizes[0] > sizes[1] >= sizes[2]
    for level in (least - 1, most + 1, "x", "-1", "99999999999999999999"):
        done = cairn(
            "convert",
            "--overwrite",
            "-c",
            "-o",
            f"compression_type={kind},compression_level={level}",
            "a.raw",
            "new.qcow2",
            ok=False,
        )
        assert (
            done.code == 1 and "compression_level" in done.err and not (disk / "new.qcow2").exists()
        )
    assert (
        f"must be between {least} and {most}"
        in cairn(
            "convert",
            "-c",
            "-o",
            f"compression_type={kind},compression_level=99",
            "a.raw",
            "new.qcow2",
            ok=False,
        ).err
    )


def test_where_it_does_not_belong(disk, cairn, ours):
    assert (
        "no effect without -c"
        in cairn("convert", "-o", "compression_level=3", "a.raw", "t.qcow2", ok=False).err
    )
    assert (
        "Invalid parameter 'compression_level'"
        in cairn("convert", "-O", "raw", "-o", "compression_level=3", "a.raw", "t", ok=False).err
    )
    done = cairn("create", "-f", "qcow2", "-o", "compression_level=3", "t.qcow2", "1M")
    assert "not kept in the image" in done.err and "compression_level" not in done.out
    assert (
        cairn("create", "-f", "qcow2", "-o", "compression_level=13", "t.qcow2", "1M", ok=False).code
        == 1
    )
    assert "compression_level" in cairn("create", "-f", "qcow2", "-o", "help").out
    # QEMU's tool has no such option.
    assert "compression_level" not in ours("create", "-f", "qcow2", "-o", "help").out
    assert (
        "Invalid parameter 'compression_level'"
        in ours(
            "convert",
            "-c",
            "-O",
            "qcow2",
            "-o",
            "compression_level=3",
            "a.raw",
            "t.qcow2",
            ok=False,
        ).err
    )
