"""`cairn serve --throttle`: what waits for its turn does not keep the server from ending."""
import signal

import pytest

from conftest import CAIRN
from nbd_support import READ, Server


def test_limits_end_with_the_server(tmp_path):
    (tmp_path / "d.raw").write_bytes(b"x" * 65536)
    words = ["--throttle", "iops-total=1,share=bytes", "-k", tmp_path / "s", "-f", "raw"]
    one = Server([CAIRN, "serve", *words, tmp_path / "d.raw"], tmp_path / "s")
    try:
        client = one.client()
        client.start()
        # At one a second the first 64, which are under way at a time, take a minute.
        for cookie in range(100):
            client.request(READ, 0, 512, cookie=cookie)
        client.reply()
        one.job.send_signal(signal.SIGTERM)
        assert one.job.wait(timeout=30) == 0
    finally:
        one.end()


@pytest.mark.parametrize(
    "limits, said",
    [
        ("bps-total=1M,bps-read=1", "cannot be used at the same time"),
        ("bps-total-max=1M", "require corresponding bps/iops values"),
        ("speed=7", "the limits 'speed=7': there is no limit 'speed'"),
        ("", "no limit is given"),
        ("share=7", "accepts requests or bytes"),
        ("bps-total=fast", "bps-total"),
    ],
)
def test_limits_that_make_no_sense(cairn, tmp_path, limits, said):
    (tmp_path / "d.raw").write_bytes(bytes(512))
    done = cairn("serve", "--throttle", limits, "-p", "0", tmp_path / "d.raw", ok=False)
    assert done.code == 1 and said in done.err
