"""convert -C, where the kernel cannot copy."""
import os

from conftest import small_file_system


def test_to_another_file_system(folder, cairn):
    """Pieces that wait for the first refusal are read as well."""
    content = os.urandom(96 << 20)
    (folder / "a.raw").write_bytes(content)
    with small_file_system(folder / "other", "100m"):
        for more in [], ["-W"]:
            cairn("convert", "-C", "--overwrite", *more, "-O", "raw", "a.raw", "other/b.raw")
            assert (folder / "other/b.raw").read_bytes() == content
            (folder / "other/b.raw").unlink()
