"""An NBD server in which a test replaces what it likes."""
import socket
import struct
import threading

OPTION, REPLY = 0x49484156454F5054, 0x3E889045565A9
NEWSTYLE = struct.pack(">QQH", 0x4E42444D41474943, OPTION, 3)


class OddNbd(threading.Thread):
    """A server that plays by the rules but for what HOOKS change: by option number, "read", "status", "greeting"."""

    def __init__(self, path, hooks):
        super().__init__(daemon=True)
        self.hooks = hooks
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.start()

    def run(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            try:
                self.serve(peer)
            except (OSError, EOFError, struct.error):
                pass
            peer.close()

    def take(self, peer, count):
        data = b""
        while len(data) < count:
            part = peer.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def serve(self, peer):
        hooks = self.hooks
        peer.sendall(hooks.get("greeting", NEWSTYLE))
        self.take(peer, 4)
        while True:
            _, option, length = struct.unpack(">QII", self.take(peer, 16))
            self.take(peer, length)

            def reply(kind, data=b"", echo=option, size=None):
                peer.sendall(
                    struct.pack(">QIII", REPLY, echo, kind, len(data) if size is None else size)
                    + data
                )

            if option in hooks:
                if hooks[option](reply, peer):
                    return
                continue
            if option == 8:
                reply(1)
            elif option == 10:
                reply(4, struct.pack(">I", 7) + hooks.get("context", b"base:allocation"))
                reply(1)
            elif option == 7:
                if "block" in hooks:
                    reply(3, struct.pack(">HIII", 3, hooks["block"], 4096, 1 << 20))
                reply(
                    3, struct.pack(">HQH", 0, hooks.get("size", 1 << 20), hooks.get("flags", 0x8D))
                )
                reply(1)
                break
            else:
                reply(0x80000001)
        while True:
            _, flags, command, cookie, offset, length = struct.unpack(
                ">IHHQQI", self.take(peer, 28)
            )
            if command == 2:
                return
            name = {0: "read", 7: "status"}.get(command)

            def chunk(kind, data, done=1, to=cookie, size=None):
                peer.sendall(
                    struct.pack(
                        ">IHHQI", 0x668E33EF, done, kind, to, len(data) if size is None else size
                    )
                    + data
                )

            if name in hooks:
                hooks[name](chunk, offset, length, cookie, peer)
            elif command == 0:
                chunk(1, struct.pack(">Q", offset) + bytes(length))
            elif command == 7:
                chunk(5, struct.pack(">III", 7, length, 0))
            else:
                peer.sendall(struct.pack(">IIQ", 0x67446698, 0, cookie))
