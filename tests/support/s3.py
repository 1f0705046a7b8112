"""A small S3 service: it checks every signature by itself, and misbehaves as the name of the bucket says."""
import contextlib
import hashlib
import hmac
import http.server
import os
import re
import socket
import ssl
import struct
import threading
import time
import urllib.request
from urllib.parse import parse_qsl, quote, unquote, urlsplit

ACCESS_KEY, SECRET_KEY, REGION = "AKTEST", "sk/secret+x", "eu-west-1"


def signature(secret, method, path, query, head, signed, payload, when, region):
    """Version 4 of the signature; PATH and QUERY as a URL has them."""
    pairs = sorted(
        (quote(name, safe="-._~"), quote(value, safe="-._~"))
        for name, value in parse_qsl(query, keep_blank_values=True)
        if name != "X-Amz-Signature"
    )
    canonical = "\n".join(
        [
            method,
            quote(unquote(path), safe="/-._~"),
            "&".join(f"{name}={value}" for name, value in pairs),
            *(f"{name}:{' '.join(head[name].split())}" for name in signed),
            "",
            ";".join(signed),
            payload,
        ]
    )
    scope = f"{when[:8]}/{region}/s3/aws4_request"
    text = "\n".join(
        ["AWS4-HMAC-SHA256", when, scope, hashlib.sha256(canonical.encode()).hexdigest()]
    )
    key = ("AWS4" + secret).encode()
    for part in (when[:8], region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def use_service(monkeypatch, folder, server):
    """The endpoint and the credentials of the tests, and none of this machine's."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in {
        "no_proxy": "*",
        "HOME": str(folder),
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": REGION,
    }.items():
        monkeypatch.setenv(name, value)


def presigned(url, seconds=600, access_key=ACCESS_KEY, secret=SECRET_KEY, region=REGION):
    """URL with a signature for GET in its query."""
    parts = urlsplit(url)
    when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    query = "&".join(
        f"{name}={quote(value, safe='-._~')}"
        for name, value in (
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", f"{access_key}/{when[:8]}/{region}/s3/aws4_request"),
            ("X-Amz-Date", when),
            ("X-Amz-Expires", str(seconds)),
            ("X-Amz-SignedHeaders", "host"),
        )
    )
    head = {"host": parts.netloc}
    made = signature(
        secret, "GET", parts.path, query, head, ["host"], "UNSIGNED-PAYLOAD", when, region
    )
    return f"{url}?{query}&X-Amz-Signature={made}"


def request(url, method, body, query, access_key, secret, region):
    """The body of the answer to a signed request."""
    parts, when = urlsplit(url), time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = quote(parts.path, safe="/-._~")
    text = "&".join(f"{quote(name)}={quote(value, safe='-._~')}" for name, value in query.items())
    payload = hashlib.sha256(body).hexdigest()
    head = {"host": parts.netloc, "x-amz-content-sha256": payload, "x-amz-date": when}
    signed = sorted(head)
    made = signature(secret, method, path, text, head, signed, payload, when, region)
    head["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={access_key}/{when[:8]}/{region}/s3/aws4_request,"
        f"SignedHeaders={';'.join(signed)},Signature={made}"
    )
    asked = urllib.request.Request(
        f"{parts.scheme}://{parts.netloc}{path}?{text}",
        data=body or None,
        headers=head,
        method=method,
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return answer.read()


def error_page(code, message="no", more=""):
    return f"<?xml version='1.0'?>\n<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>".encode()


class Refused(Exception):
    def __init__(self, status, code, more="", **head):
        super().__init__(code)
        self.status, self.page, self.head = status, error_page(code, more=more), head


class S3Server:
    """
    Objects by (bucket, key). `asked` has (method, path with query, headers) of every request. TLS: files of a certificate
    and its key.
    """

    def __init__(self, token=None, tls=None):
        self.objects, self.uploads, self.asked, self.aborted = {}, {}, [], []
        self.marks = {}  # ETags that are no digest of the whole
        self.gate = threading.Event()  # for which the bucket "held" waits with parts above 2
        # Session tokens, one of which a request must have; none: requests need none.
        self.tokens, self.lock = {token} if token else set(), threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *words):
                pass

            lost = False

            def answer(self, status, body=b"", **head):
                if self.lost:
                    self.lost = False
                    return self.reset()
                self.send_response(status)
                for name, value in head.items():
                    self.send_header(name.replace("_", "-"), str(value))
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def handle_any(self):
                parts = urlsplit(self.path)
                _, self.bucket, self.key = unquote(parts.path).split("/", 2)
                self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
                with outer.lock:
                    outer.asked.append((self.command, self.path, dict(self.headers)))
                    self.turn = sum(
                        1
                        for method, path, _ in outer.asked
                        if (method, path) == (self.command, self.path)
                    )
                try:
                    length = int(self.headers.get("Content-Length", 0))
                    if self.command == "PUT" and self.bucket == "part-reset" and self.turn == 1:
                        return self.reset()
                    body = self.rfile.read(length)
                    self.check(parts, body)
                    name = f"{self.command.lower()}_{self.bucket.replace('-', '_')}"
                    getattr(self, name, getattr(self, self.command.lower()))(body)
                except Refused as why:
                    with contextlib.suppress(OSError):
                        self.answer(why.status, why.page, **why.head)
                except OSError:
                    self.close_connection = True

            do_GET = do_PUT = do_POST = do_DELETE = handle_any

            def do_HEAD(self):
                self.answer(405)

            def reset(self):
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                self.close_connection = True

            def check(self, parts, body):
                if self.bucket.startswith("public"):
                    if "Authorization" in self.headers:
                        raise Refused(403, "AccessDenied")
                    return
                if self.bucket == "skewed":
                    raise Refused(403, "RequestTimeTooSkewed")
                if self.bucket == "expired":
                    raise Refused(400, "ExpiredToken")
                head = {name.lower(): value for name, value in self.headers.items()}
                if "X-Amz-Signature" in self.query:
                    credential, given = (
                        self.query["X-Amz-Credential"],
                        self.query["X-Amz-Signature"],
                    )
                    signed, payload = (
                        self.query["X-Amz-SignedHeaders"].split(";"),
                        "UNSIGNED-PAYLOAD",
                    )
                    when = self.query["X-Amz-Date"]
                else:
                    found = re.fullmatch(
                        r"AWS4-HMAC-SHA256 Credential=(\S+),SignedHeaders=(\S+),Signature=(\w{64})",
                        head.get("authorization", ""),
                    )
                    if not found:
                        raise Refused(403, "AccessDenied")
                    credential, signed, given = found[1], found[2].split(";"), found[3]
                    payload, when = head["x-amz-content-sha256"], head["x-amz-date"]
                    assert {"host", "x-amz-content-sha256", "x-amz-date"} <= set(signed)
                    if (
                        payload != "UNSIGNED-PAYLOAD"
                        and payload != hashlib.sha256(body).hexdigest()
                    ):
                        raise Refused(400, "XAmzContentSHA256Mismatch")
                access, _, region = credential.split("/")[:3]
                if access != ACCESS_KEY:
                    raise Refused(403, "InvalidAccessKeyId")
                if outer.tokens and head.get("x-amz-security-token") not in outer.tokens:
                    raise Refused(403, "InvalidToken")
                if outer.tokens and "x-amz-security-token" not in signed:
                    raise Refused(403, "AccessDenied")
                if given != signature(
                    SECRET_KEY,
                    self.command,
                    parts.path,
                    parts.query,
                    head,
                    signed,
                    payload,
                    when,
                    region,
                ):
                    raise Refused(403, "SignatureDoesNotMatch")
                if self.bucket == "moves":
                    raise Refused(301, "PermanentRedirect", x_amz_bucket_region="eu-north-1")
                if region != REGION and self.bucket == "malformed":
                    raise Refused(400, "AuthorizationHeaderMalformed", f"<Region>{REGION}</Region>")
                if region != REGION:
                    raise Refused(301, "PermanentRedirect", x_amz_bucket_region=REGION)

            # --- reading ---

            def wanted(self, data):
                spec = self.headers.get("Range")
                if spec is None:
                    return None
                first, last = spec.removeprefix("bytes=").split("-")
                if int(first) >= len(data):
                    raise Refused(416, "InvalidRange")
                return int(first), min(int(last), len(data) - 1)

            def get(self, body, data=None, etag=None, total=None, shift=0, cut=None, more=b""):
                if "uploadId" in self.query:
                    return self.list_parts(self.upload())
                if data is None:
                    if (self.bucket, self.key) not in outer.objects:
                        raise Refused(404, "NoSuchKey")
                    data = outer.objects[self.bucket, self.key]
                version = self.query.get("versionId")
                if version is not None and version != "v1/~+":
                    raise Refused(404, "NoSuchVersion")
                mark = etag or outer.marks.get((self.bucket, self.key))
                mark = mark or f'"{hashlib.md5(data).hexdigest()}"'
                if etag is None and self.headers.get("If-Match", mark) != mark:
                    raise Refused(412, "PreconditionFailed")
                span = self.wanted(data)
                self.send_response(206 if span else 200)
                first, last = span or (0, len(data) - 1)
                if span:
                    place = f"{first + shift}-{last + shift}"
                    self.send_header("Content-Range", f"bytes {place}/{total or len(data)}")
                if mark != "none":
                    self.send_header("ETag", mark)
                self.send_header("Content-Length", str(last - first + 1 + len(more)))
                self.end_headers()
                self.wfile.write(data[first : last + 1][:cut] + more)
                if cut is not None:
                    self.close_connection = True

            def get_slow_down(self, body):
                if self.turn % 2 == 1:
                    raise Refused(503, "SlowDown")
                self.get(body)

            def get_always_slow(self, body):
                raise Refused(503, "SlowDown")

            def first_then(self, body, **odd):
                odd = odd if self.turn > 1 or int(self.wanted(bytes(1 << 30))[0]) else {}
                self.get(body, **odd)

            def get_other_etag(self, body):
                self.first_then(body, etag='"other"')

            def get_other_object(self, body):
                if self.wanted(bytes(1 << 30))[0]:
                    outer.objects[self.bucket, self.key] = b"x" * len(
                        outer.objects[self.bucket, self.key]
                    )
                self.get(body)

            def get_other_range(self, body):
                self.first_then(body, shift=-512)

            def get_other_total(self, body):
                self.first_then(body, total=1 << 40)

            def get_no_etag(self, body):
                self.get(body, etag="none")

            def get_cut(self, body):
                self.get(body, cut=100_000)

            def get_more(self, body):
                self.get(body, more=b"x" * 1000)

            def get_stalls(self, body):
                if self.wanted(bytes(1 << 30))[0] == 0:
                    return self.get(body)
                time.sleep(20)

            def get_noise(self, body):
                self.answer(403, bytes(range(256)) * 20)

            def get_endless(self, body):
                self.send_response(403)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                while True:
                    self.wfile.write(b"1000\r\n" + b"<" * 4096 + b"\r\n")

            def get_escapes(self, body):
                self.answer(
                    403, error_page("Acc\x1b[31mess".replace("\x1b", "&#27;"), "&#7;" * 9999)
                )

            # --- writing ---

            def list_parts(self, parts):
                """Two at a time."""
                after = int(self.query["part-number-marker"])
                left = sorted(number for number in parts if number > after)
                page = "".join(
                    f"<Part><PartNumber>{n}</PartNumber><Size>{len(parts[n])}</Size>"
                    f"<ETag>&quot;{hashlib.md5(parts[n]).hexdigest()}&quot;</ETag></Part>"
                    for n in left[:2]
                )
                more = str(len(left) > 2).lower()
                page = f"<ListPartsResult><IsTruncated>{more}</IsTruncated>{page}</ListPartsResult>"
                self.answer(200, page.encode())

            def get_list_lies(self, body):
                if "uploadId" not in self.query:
                    return self.get(body)
                self.answer(
                    200, b"<ListPartsResult><IsTruncated>true</IsTruncated></ListPartsResult>"
                )

            def put_held(self, body):
                if int(self.query.get("partNumber", 0)) > 2:
                    outer.gate.wait(20)
                self.put(body)

            put_list_lies = put_held

            def put(self, body):
                if "uploadId" not in self.query:
                    outer.marks.pop((self.bucket, self.key), None)
                    outer.objects[self.bucket, self.key] = body
                    return self.answer(200, ETag=f'"{hashlib.md5(body).hexdigest()}"')
                upload = self.upload()
                with outer.lock:
                    upload[int(self.query["partNumber"])] = body
                self.answer(200, ETag=f'"{hashlib.md5(body).hexdigest()}"')

            def upload(self):
                if self.query["uploadId"] not in outer.uploads:
                    raise Refused(404, "NoSuchUpload")
                return outer.uploads[self.query["uploadId"]]

            def put_part_slow(self, body):
                if self.turn == 1:
                    raise Refused(503, "SlowDown")
                self.put(body)

            def put_part_unnamed(self, body):
                self.answer(200)

            def put_part_refused(self, body):
                if self.query.get("partNumber", "2") != "1":
                    raise Refused(403, "QuotaExceeded")
                self.put(body)

            def put_abort_fails(self, body):
                raise Refused(403, "QuotaExceeded")

            def put_part_stalls(self, body):
                time.sleep(20)

            def post(self, body):
                if "uploads" in self.query:
                    with outer.lock:
                        name = f"2~id/{len(outer.uploads)}+="
                        outer.uploads[name] = {}
                    page = f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
                    return self.answer(200, page.encode())
                upload = self.upload()
                listed = re.findall(
                    r"<Part><PartNumber>(\d+)</PartNumber><ETag>(?:&quot;|\")(\w+)(?:&quot;|\")</ETag></Part>",
                    body.decode(),
                )
                numbers = sorted(upload)
                right = [(str(n), hashlib.md5(upload[n]).hexdigest()) for n in numbers]
                if listed != right or any(len(upload[n]) < 5 << 20 for n in numbers[:-1]):
                    raise Refused(400, "InvalidPart")
                outer.objects[self.bucket, self.key] = b"".join(upload[n] for n in numbers)
                outer.marks[self.bucket, self.key] = f'"{os.urandom(16).hex()}-{len(numbers)}"'
                del outer.uploads[self.query["uploadId"]]
                self.answer(
                    200,
                    b"<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>",
                )

            def post_late_error(self, body):
                if "uploadId" in self.query and self.turn == 1:
                    return self.answer(200, error_page("InternalError"))
                self.post(body)

            def post_late_refusal(self, body):
                if "uploadId" in self.query:
                    return self.answer(200, error_page("AccessDenied", "you may not"))
                self.post(body)

            def post_answer_lost(self, body):
                self.lost = "uploadId" in self.query and self.turn == 1
                self.post(body)

            def post_answer_lost_and_object(self, body):
                self.post_answer_lost(body)
                if "uploadId" in self.query:
                    outer.objects[self.bucket, self.key] = b"other"

            def post_nameless(self, body):
                self.answer(200, b"<InitiateMultipartUploadResult/>")

            def post_noise(self, body):
                self.answer(200, b"\xff<html>" * 99)

            def post_complete_stalls(self, body):
                if "uploadId" in self.query:
                    time.sleep(20)
                self.post(body)

            def delete(self, body):
                self.upload()
                with outer.lock:
                    outer.aborted.append(self.query["uploadId"])
                    del outer.uploads[self.query["uploadId"]]
                self.answer(204)

            def delete_abort_fails(self, body):
                raise Refused(500, "InternalError")

            def delete_abort_stalls(self, body):
                time.sleep(20)

            put_abort_stalls = put_abort_fails

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.endpoint = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
