"""What HTTP servers that a test writes by hand share: they accept, and cut requests out of what comes."""
import contextlib
import socket
import threading


class RangeServer:
    """A class derived from it answers: answer(peer, head) gets each request, in lower case, and
    says with False that the connection ends."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def url(self, user=""):
        return f"http://{user}127.0.0.1:{self.port}/disk.raw"

    def accept(self):
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

    def serve(self, peer):
        with peer, contextlib.suppress(OSError):
            text = b""
            while True:
                while b"\r\n\r\n" not in text:
                    piece = peer.recv(65536)
                    if not piece:
                        return
                    text += piece
                head, text = text.split(b"\r\n\r\n", 1)
                if self.answer(peer, head.decode().lower()) is False:
                    return
