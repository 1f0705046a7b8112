"""The metadata service of a virtual machine or a container: gives keys that last a few seconds."""
import http.server
import json
import threading
import time


class Metadata:
    """`asked` has (method, path, headers); `keys()` gives the access key, the secret key and the token of each answer."""

    def __init__(self, keys, seconds=3600, role="a role/é"):
        self.keys, self.seconds, self.role, self.asked = keys, seconds, role, []
        self.status, self.page, self.given = 200, None, 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *words):
                pass

            def answer(self, body, status=200):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_PUT(self):
                outer.asked.append((self.command, self.path, dict(self.headers)))
                if "X-aws-ec2-metadata-token-ttl-seconds" not in self.headers:
                    return self.answer(b"", 400)
                return self.answer(b"machine token", outer.status)

            def do_GET(self):
                outer.asked.append((self.command, self.path, dict(self.headers)))
                roles = "/latest/meta-data/iam/security-credentials/"
                if self.path.startswith("/latest/"):
                    if self.headers.get("X-aws-ec2-metadata-token") != "machine token":
                        return self.answer(b"", 401)
                    if self.path == roles:
                        return self.answer(outer.role.encode(), 200 if outer.role else 404)
                    if self.path != roles + "a%20role/%C3%A9":
                        return self.answer(b"", 404)
                elif self.headers.get("Authorization") != "container token":
                    return self.answer(b"", 401)
                return self.answer(outer.document(), outer.status)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def document(self):
        if self.page is not None:
            return self.page
        self.given += 1
        access, secret, token = self.keys()
        until = time.gmtime(time.time() + self.seconds)
        return json.dumps(
            {
                "Code": "Success",
                "AccessKeyId": access,
                "SecretAccessKey": secret,
                "Token": token,
                "Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", until),
            }
        ).encode()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
