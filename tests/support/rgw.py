"""Ceph's object gateway on loopback, over the cluster of a test run."""
import subprocess
import time
import urllib.error
import urllib.request

from support.s3 import request
from support.web import free_port

SECRET_KEY, REGION = "SK/1234567890+x", "us-east-1"


class Gateway:
    """Serves at `endpoint`, with a user and the bucket `bucket` of its own. FOLDER is its own."""

    def __init__(self, cluster, folder):
        port = free_port()
        self.access_key, self.bucket = f"AK{port}", f"disks.{port}"
        self.endpoint = f"http://127.0.0.1:{port}"
        self.log = folder / "rgw.log"
        common = ["-c", str(cluster.conf), "-n", "client.admin"]
        words = [
            "--rgw-frontends",
            f"beast endpoint=127.0.0.1:{port}",
            "--rgw-data",
            str(folder),
            "-f",
        ]
        words += ["--pid-file", "", "--log-file", str(folder / "radosgw.log")]
        with open(self.log, "wb") as log:
            self.job = subprocess.Popen(["radosgw", *common, *words], stdout=log, stderr=log)
        try:
            self.wait()
            cluster.run(
                *["radosgw-admin", *common, "user", "create", f"--uid=u{port}", "--display-name=u"],
                *[f"--access-key={self.access_key}", f"--secret-key={SECRET_KEY}"],
            )
            self.ask("PUT", "")
        except BaseException:
            self.stop()
            raise

    def wait(self):
        until = time.monotonic() + 120
        while True:
            try:
                return urllib.request.urlopen(self.endpoint, timeout=10).close()
            except urllib.error.HTTPError:
                return None
            except OSError:
                assert self.job.poll() is None and time.monotonic() < until, self.log.read_text()
                time.sleep(0.1)

    def ask(self, method, key, body=b"", **query):
        """A request of our own, signed by the code of the tests; what it answers."""
        return request(
            f"{self.endpoint}/{self.bucket}/{key}",
            method,
            body,
            query,
            self.access_key,
            SECRET_KEY,
            REGION,
        )

    def stop(self):
        self.job.kill()
        self.job.wait(timeout=60)
