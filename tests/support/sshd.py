"""An SSH server of a test: its own keys, an agent, and everything in one directory."""
import getpass
import hashlib
import base64
import os
import re
import socket
import subprocess
import time

from support.web import free_port


# A user data base and a PAM configuration of the server's own; the account is that of the tests, by another name.
WITH_PASSWORD = """
set -e
# A copy of a mount of another test would keep that from ending.
umount -l -a -t fuse.cairn || true
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/shadow" /etc/shadow
mount --bind "$1/pam" /etc/pam.d/sshd
shift
exec "$@"
"""


def add_account(folder, user, password):
    """The files of WITH_PASSWORD."""
    word = subprocess.run(
        ["perl", "-e", "print crypt($ARGV[0], q($6$saltsalt$))", password],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    with open("/etc/passwd") as known:
        lines = [line for line in known if line.split(":")[0] != user]
    account = f"{user}:x:{os.geteuid()}:{os.getegid()}:test:/:/bin/sh\n"
    # The first name of a number counts.
    (folder / "passwd").write_text("".join([account, *lines]))
    (folder / "shadow").write_text(f"{user}:{word}:19000:0:99999:7:::\n")
    (folder / "shadow").chmod(0o600)
    (folder / "pam").write_text(
        "auth required pam_unix.so nodelay\naccount required pam_permit.so\nsession required pam_permit.so\n"
    )


class Sshd:
    """PASSWORD: that of the account "tester", which the server has beside the keys; needs the rights of root."""

    def __init__(self, folder, sftp="internal-sftp", more="", password=None):
        self.folder, self.port, self.user = folder, free_port(), getpass.getuser()
        folder.mkdir(exist_ok=True)
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        for name, kind in (
            ("host_ed25519", "ed25519"),
            ("host_rsa", "rsa"),
            ("user_key", "ed25519"),
            ("locked_key", "ed25519"),
        ):
            if not (folder / name).exists():
                secret = "open sesame" if name == "locked_key" else ""
                subprocess.run(
                    ["ssh-keygen", "-q", "-t", kind, "-N", secret, "-f", str(folder / name)],
                    check=True,
                )
        keys = (folder / "user_key.pub").read_text() + (folder / "locked_key.pub").read_text()
        (folder / "authorized_keys").write_text(keys)
        (folder / "authorized_keys").chmod(0o600)
        (folder / "sshd_config").write_text(
            f"""Port {self.port}
ListenAddress 127.0.0.1
HostKey {folder}/host_ed25519
HostKey {folder}/host_rsa
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
{more}
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
MaxSessions 100
Subsystem sftp {sftp}
"""
        )
        words = ["/usr/sbin/sshd", "-D", "-f", folder / "sshd_config", "-E", folder / "log"]
        if password is not None:
            self.user = "tester"
            add_account(folder, self.user, password)
            root = [] if os.geteuid() == 0 else ["sudo"]
            words = [*root, "unshare", "-m", "sh", "-c", WITH_PASSWORD, "sh", folder, *words]
        self.job = subprocess.Popen([str(word) for word in words])
        until = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 5).close()
                break
            except OSError:
                assert self.job.poll() is None and time.monotonic() < until, (
                    folder / "log"
                ).read_text()
                time.sleep(0.02)

    def url(self, path, check="no"):
        query = f"?host_key_check={check}" if check else ""
        return f"ssh://{self.user}@127.0.0.1:{self.port}{path}{query}"

    def known_hosts(self, *kinds):
        """A file with the host's keys of these KINDS."""
        lines = subprocess.run(
            ["ssh-keyscan", "-p", str(self.port), "127.0.0.1"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        path = self.folder / "known_hosts"
        path.write_text(
            "".join(
                line + "\n" for line in lines.splitlines() if not kinds or line.split()[1] in kinds
            )
        )
        return path

    def hashes(self):
        """The hash of the key that the server presents, in each spelling."""
        blob = base64.b64decode((self.folder / "host_ed25519.pub").read_text().split()[1])
        sha256 = hashlib.sha256(blob).digest()
        md5 = hashlib.md5(blob).hexdigest()
        return {
            "md5": md5,
            "md5 colons": re.sub("(..)(?=.)", r"\1:", md5),
            "sha1": hashlib.sha1(blob).hexdigest(),
            "sha256": sha256.hex(),
            "SHA256": base64.b64encode(sha256).decode().rstrip("="),
        }

    def stop(self):
        self.job.terminate()
        self.job.wait(timeout=20)


def listens(path):
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0


class Agent:
    def __init__(self, folder, *keys):
        self.path = str(folder / "agent.sock")
        self.job = subprocess.Popen(["ssh-agent", "-D", "-a", self.path], stdout=subprocess.DEVNULL)
        until = time.monotonic() + 20
        # The socket is there before the agent listens.
        while not listens(self.path):
            assert time.monotonic() < until
            time.sleep(0.02)
        for key in keys:
            subprocess.run(
                ["ssh-add", "-q", str(key)],
                env={**os.environ, "SSH_AUTH_SOCK": self.path},
                check=True,
            )

    def stop(self):
        self.job.terminate()
        self.job.wait(timeout=20)
