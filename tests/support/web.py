"""Web servers of the tests: nginx with files, and one that misbehaves as the path of a URL says."""
import http.server
import os
import socket
import struct
import subprocess
import threading
import time


GIVEN = set()


def free_port():
    """A port that nobody has, and that was not given before: servers bind theirs later."""
    while True:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        if port not in GIVEN:
            GIVEN.add(port)
            return port


class Nginx:
    """Serves the directory www below FOLDER: plain, /auth/ with me:secret, /noranges/, /redir/, and by TLS. MORE: further servers."""

    def __init__(self, folder, more=""):
        self.folder, self.port, self.tls_port = folder, free_port(), free_port()
        (folder / "www").mkdir()
        subprocess.run(
            [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-keyout",
                "key.pem",
                "-out",
                "cert.pem",
                "-days",
                "10",
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost,IP:127.0.0.1",
            ],
            cwd=folder,
            check=True,
            capture_output=True,
        )
        secret = subprocess.run(
            ["openssl", "passwd", "-apr1", "secret"], check=True, capture_output=True, text=True
        ).stdout
        (folder / "pw").write_text("me:" + secret)
        temporary = "".join(
            f"{kind}_temp_path {folder}/t_{kind}; "
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(
            f"""{user} worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/err;
events {{ worker_connections 256; }}
http {{ log_format seen '$request|$http_range|$http_cookie|$http_authorization|$http_user_agent|$http_x_token';
 access_log {folder}/acc seen; {temporary} keepalive_requests 100000;
 server {{ listen 127.0.0.1:{self.port}; listen 127.0.0.1:{self.tls_port} ssl; ssl_certificate {folder}/cert.pem;
  ssl_certificate_key {folder}/key.pem; root {folder}/www;
  location /auth/ {{ alias {folder}/www/; auth_basic x; auth_basic_user_file {folder}/pw; }}
  location /noranges/ {{ alias {folder}/www/; max_ranges 0; }}
  location /down/ {{ return 302 http://127.0.0.1:{self.port}/disk.raw; }}
  location /redir/ {{ rewrite ^/redir/(.*)$ /$1 redirect; }} }}
 {more} }}
"""
        )
        self.job = subprocess.Popen(
            [
                "nginx",
                "-p",
                str(folder),
                "-c",
                str(folder / "nginx.conf"),
                "-e",
                str(folder / "err"),
            ],
            env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin"},
        )
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.tls_port), 5).close()
                break
            except OSError:
                assert self.job.poll() is None and time.monotonic() < until, (
                    folder / "err"
                ).read_text()
                time.sleep(0.02)

    def url(self, path, tls=False):
        return (
            f"https://127.0.0.1:{self.tls_port}/{path}"
            if tls
            else f"http://127.0.0.1:{self.port}/{path}"
        )

    def seen(self):
        return (self.folder / "acc").read_text().splitlines()

    def stop(self):
        self.job.terminate()
        self.job.wait(timeout=20)


class OddServer:
    """Serves DATA at http://…/BEHAVIOUR. `asked` has (behaviour, headers) of every request, `clients` the ends of their connections."""

    def __init__(self, data, other=None):
        self.data, self.other = data, other
        self.asked, self.clients, self.lock = [], set(), threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *words):
                pass

            def do_HEAD(self):
                self.send_error(405)

            def do_GET(self):
                name = self.path.strip("/").split("/")[0].split("?")[0]
                with outer.lock:
                    outer.asked.append((self.path, dict(self.headers)))
                    outer.clients.add(self.client_address)
                    turn = sum(1 for path, _ in outer.asked if path == self.path)
                getattr(self, name)(turn)

            # The range that was asked for, inclusive.
            def wanted(self):
                spec = self.headers.get("Range")
                if spec is None:
                    return None
                first, last = spec.removeprefix("bytes=").split("-")
                return int(first), min(int(last), len(outer.data) - 1)

            def head(self, status, **headers):
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key.replace("_", "-"), str(value))
                self.end_headers()

            def part(self, first, last, data=None, total=None, **headers):
                data = outer.data if data is None else data
                self.head(
                    206,
                    Content_Length=last - first + 1,
                    Content_Range=f"bytes {first}-{last}/{len(data) if total is None else total}",
                    **headers,
                )
                self.wfile.write(data[first : last + 1])

            def whole(self, **headers):
                self.head(200, Content_Length=len(outer.data), **headers)
                self.wfile.write(outer.data)

            def plain(self, turn):
                self.part(*self.wanted())

            # After the first answer the connection breaks, each time.
            def dies(self, turn):
                if turn == 1:
                    return self.part(*self.wanted())
                self.close_connection = True

            # Those that wait for an answer pile up.
            def slow(self, turn):
                time.sleep(0.05)
                self.part(*self.wanted())

            def slow_and(self, other):
                time.sleep(0.05)
                first, last = self.wanted()
                if last - first >= 2 << 20:
                    other(first, last)
                else:
                    self.part(first, last)

            # These do something else with more than 2 MiB at a time.
            def long_cut(self, turn):
                def cut(first, last):
                    self.head(
                        206,
                        Content_Length=last - first + 1,
                        Content_Range=f"bytes {first}-{last}/{len(outer.data)}",
                    )
                    self.wfile.write(outer.data[first : first + (5 << 19) + 77])
                    self.close_connection = True

                self.slow_and(cut)

            def long_busy(self, turn):
                self.slow_and(lambda first, last: self.error(503))

            def long_whole(self, turn):
                self.slow_and(lambda first, last: self.whole())

            def long_short(self, turn):
                self.slow_and(lambda first, last: self.part(first, first + (1 << 20)))

            def long_other(self, turn):
                self.slow_and(lambda first, last: self.part(first + 512, last + 512))

            def long_stall(self, turn):
                self.slow_and(lambda first, last: time.sleep(1.5))

            def ignores_ranges(self, turn):
                self.whole()

            def ranges_at_first(self, turn):
                self.part(*self.wanted()) if turn == 1 else self.whole()

            def short_parts(self, turn):
                first, last = self.wanted()
                self.part(first, min(last, first + 99_999))

            def other_range(self, turn):
                first, last = self.wanted()
                if turn > 1:
                    first, last = first - 512, last - 512
                self.part(first, last)

            def other_total(self, turn):
                self.part(*self.wanted(), total=None if turn == 1 else len(outer.data) + 512)

            def no_total(self, turn):
                self.part(*self.wanted(), total="*") if self.wanted() else self.whole()

            def cut(self, turn):
                first, last = self.wanted()
                self.head(
                    206,
                    Content_Length=last - first + 1,
                    Content_Range=f"bytes {first}-{last}/{len(outer.data)}",
                )
                self.wfile.write(outer.data[first : last + 1][: max(1, (last - first) // 2)])
                self.close_connection = True

            def drip(self, turn):
                first, last = self.wanted()
                self.part(first, first) if turn > 1 else self.part(first, last)

            def busy_once(self, turn):
                self.error(503) if turn in (1, 3) else self.part(*self.wanted())

            def later(self, turn):
                self.error(429, Retry_After=1) if turn == 2 else self.part(*self.wanted())

            def much_later(self, turn):
                self.error(503, Retry_After=3000)

            def broken(self, turn):
                self.error(500) if turn > 1 else self.part(*self.wanted())

            def error(self, status, **headers):
                self.head(status, Content_Length=5, **headers)
                self.wfile.write(b"error")

            def changes(self, turn):
                if turn == 1 or self.headers.get("If-Range") == '"two"':
                    self.part(*self.wanted(), ETag=f'"{"one" if turn == 1 else "two"}"')
                else:
                    self.head(200, Content_Length=len(outer.data), ETag='"two"')
                    self.wfile.write(outer.other)

            def changes_unasked(self, turn):
                self.part(
                    *self.wanted(),
                    data=outer.data if turn == 1 else outer.other,
                    ETag='"one"' if turn == 1 else '"two"',
                )

            def changes_date(self, turn):
                self.part(
                    *self.wanted(), Last_Modified=f"Mon, 0{min(turn, 2)} Jan 2024 00:00:00 GMT"
                )

            def precondition(self, turn):
                self.error(412) if turn > 1 else self.part(*self.wanted(), ETag='"one"')

            def shorter(self, turn):
                if turn == 1:
                    return self.part(*self.wanted())
                self.head(416, Content_Length=0, Content_Range="bytes */1000")

            def several(self, turn):
                self.head(206, Content_Type="multipart/byteranges; boundary=x", Content_Length=10)
                self.wfile.write(b"0123456789")

            def nameless(self, turn):
                self.head(206, Content_Length=10)
                self.wfile.write(b"0123456789")

            def chunked(self, turn):
                self.head(200, Transfer_Encoding="chunked")
                for at in range(0, len(outer.data), 300_000):
                    piece = outer.data[at : at + 300_000]
                    self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                self.wfile.write(b"0\r\n\r\n")

            def whole_cut(self, turn):
                self.head(200, Content_Length=len(outer.data))
                self.wfile.write(outer.data[: len(outer.data) // 2])
                self.close_connection = True

            def empty(self, turn):
                self.head(200, Content_Length=0)

            def empty_416(self, turn):
                self.head(416, Content_Length=0, Content_Range="bytes */0")

            def more(self, turn):
                first, last = self.wanted()
                self.head(
                    206,
                    Transfer_Encoding="chunked",
                    Content_Range=f"bytes {first}-{last}/{len(outer.data)}",
                )
                piece = outer.data[first : last + 1] + b"x" * 1000
                try:
                    self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                    while True:
                        self.wfile.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                except OSError:
                    self.close_connection = True

            def mute(self, turn):
                time.sleep(20)

            def stalls(self, turn):
                if turn == 1:
                    return self.part(*self.wanted())
                first, last = self.wanted()
                self.head(
                    206,
                    Content_Length=last - first + 1,
                    Content_Range=f"bytes {first}-{last}/{len(outer.data)}",
                )
                self.wfile.write(outer.data[first : first + 10])
                self.wfile.flush()
                time.sleep(20)

            def long_head(self, turn):
                try:
                    self.wfile.write(b"HTTP/1.1 206 Partial\r\n")
                    while True:
                        self.wfile.write(b"X-Y: " + b"z" * 8000 + b"\r\n")
                except OSError:
                    self.close_connection = True

            def garbage(self, turn):
                self.wfile.write(b"\x00\xff\x01 what is this\r\n\r\n")
                self.close_connection = True

            def hangs_up(self, turn):
                if turn > 1:
                    return self.part(*self.wanted())
                # A reset in place of an answer.
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                self.close_connection = True

            def round(self, turn):
                self.head(302, Content_Length=0, Location=self.path)

            def moved(self, turn):
                self.head(302, Content_Length=0, Location=f"/signed?{turn}")

            def signed(self, turn):
                self.part(*self.wanted()) if turn <= 2 else self.error(403)

            def elsewhere(self, turn):
                self.head(302, Content_Length=0, Location=f"http://localhost:{outer.port}/plain")

            def never(self, turn):
                self.head(302, Content_Length=0, Location="file:///etc/passwd")

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def url(self, behaviour):
        return f"http://127.0.0.1:{self.port}/{behaviour}"

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
