"""What Cairn's own name does for people, and QEMU's names do not."""
from conftest import sparse_disk

MIB = 1 << 20


def test_options_are_named_in_whole(folder, cairn, ours):
    sparse_disk("a.raw", MIB)
    for words, meant in ((["convert", "--force", "a.raw", "t.raw"], "--force-share"), (["info", "--outptu=json", "a.raw"], "--output"),
                         (["compare", "--strcit", "a.raw", "a.raw"], "--strict"), (["compare", "--progres", "a.raw", "a.raw"], "--progress")):
        done = cairn(*words, ok=False)
        assert done.code == 1
        option = words[1].split("=")[0]
        assert f"unrecognized option '{words[1]}'; did you mean '{meant}'?" in done.err, (option, done.err)
    done = cairn("info", "--qqqq", "a.raw", ok=False)
    assert done.code == 1 and "did you mean" not in done.err
    assert ours("convert", "--force", "a.raw", "t.raw").code == 0


def test_vhd_keeps_the_size(folder, cairn, ours):
    size = 10 * MIB
    sparse_disk("a.raw", size)
    done = cairn("convert", "a.raw", "a.vhd")
    assert done.err == "" and cairn("info", "--output=json", "a.vhd").json()["virtual-size"] == size
    done = ours("convert", "-O", "vpc", "a.raw", "b.vhd")
    grown = ours("info", "--output=json", "-f", "vpc", "b.vhd").json()["virtual-size"]
    assert grown > size and done.err.count("\n") == 1
    assert f"warning: the VHD disk grows from {size} to {grown} bytes" in done.err and "force_size=on" in done.err
    assert cairn("create", "-q", "-o", "force_size=off", "c.vhd", "10M").err.count("warning") == 1
    assert cairn("info", "--output=json", "c.vhd").json()["virtual-size"] == grown
    # A size that is a geometry already does not change.
    assert ours("create", "-q", "-f", "vpc", "d.vhd", str(grown)).err == ""
