"""A conversion that fails half-way, onto a server of files."""


def check_failing_convert(cairn, folder, url_of, place):
    """What a failed conversion made goes; URL_OF gives the URL of a name, which is in the directory PLACE here; what was there before it stays."""
    (folder / "faults").write_text(
        '[inject-error]\nevent = "none"\nonce = "off"\nerrno = "5"\nsector = "4096"\n'
    )
    (folder / "half").write_bytes(b"a" * (1 << 20) + bytes(1 << 20) + b"x" * 512)
    source = (
        f"driver=blkdebug,config={folder}/faults,image.driver=file,image.filename={folder}/half"
    )
    for form in "raw", "qcow2":
        url, path = url_of(f"new.{form}"), place / f"new.{form}"
        words = ["--image-opts", "-O", form, source, url]
        failed = cairn("convert", *words, ok=False)
        assert failed.code == 1 and "Input/output error" in failed.err, failed.err
        assert f"The incomplete target '{url}' was removed." in failed.err
        assert not path.exists()
        cairn("create", "-f", "raw", url, "1M")
        failed = cairn("convert", "--overwrite", *words, ok=False)
        assert failed.code == 1 and "removed" not in failed.err and "must not be used" in failed.err
        assert path.exists()
