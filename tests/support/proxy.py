"""A web proxy of a test that asks who uses it: requests with whole URLs, and tunnels."""
import base64
import http.client
import http.server
import socket
import threading
from urllib.parse import urlsplit


class Proxy:
    """Lets USER with PASSWORD through; `asked` has (method, target, whether the login was right)."""

    def __init__(self, user="me", password="open sesame"):
        self.asked = []
        outer = self
        right = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *words):
                pass

            def known(self):
                good = self.headers.get("Proxy-Authorization") == right
                outer.asked.append((self.command, self.path, good))
                if not good:
                    self.send_response(407)
                    self.send_header("Proxy-Authenticate", 'Basic realm="x"')
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                return good

            def forward(self):
                if not self.known():
                    return
                parts = urlsplit(self.path)
                there = http.client.HTTPConnection(parts.netloc, timeout=30)
                head = {
                    name: value
                    for name, value in self.headers.items()
                    if not name.lower().startswith("proxy-")
                }
                there.request(self.command, parts.path, headers=head)
                answer = there.getresponse()
                body = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("connection", "transfer-encoding"):
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                there.close()

            do_GET = do_HEAD = forward

            def do_CONNECT(self):
                if not self.known():
                    return
                host, port = self.path.rsplit(":", 1)
                with socket.create_connection((host, int(port)), 30) as there:
                    self.send_response(200)
                    self.end_headers()
                    back = threading.Thread(target=copy, args=(there, self.connection))
                    back.start()
                    copy(self.connection, there)
                    back.join()
                self.close_connection = True

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def copy(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass
