"""A network with latency: hands on the bytes of TCP connections to a port of 127.0.0.1, later, without holding up what follows.

Run as a program (`relay.py PORT MILLISECONDS`) it prints its own port and ends with its standard input.
"""
import collections
import select
import socket
import subprocess
import sys
import time

CHUNK = 256 << 10
# What may be under way in one direction of a connection.
UNDER_WAY = 16 << 20


class Relay:
    """A relay to PORT, in a process of its own, that adds MILLISECONDS each way; `port` is where it listens."""

    def __init__(self, port, milliseconds):
        self.job = subprocess.Popen(
            [sys.executable, __file__, str(port), str(milliseconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self.job.stdout.readline())

    def stop(self):
        self.job.communicate()


class Way:
    """One direction of a connection; `back` is the other one."""

    def __init__(self, source, target):
        self.source, self.target, self.back = source, target, None
        self.waiting, self.size = collections.deque(), 0
        self.ended = self.broken = False

    def take(self, delay):
        data = self.source.recv(CHUNK)
        self.ended = not data
        self.size += len(data)
        self.waiting.append((time.monotonic() + delay, memoryview(data)))

    def hand_on(self):
        due, data = self.waiting.popleft()
        if not data:
            self.target.shutdown(socket.SHUT_WR)
            return
        sent = self.target.send(data)
        self.size -= sent
        if sent < len(data):
            self.waiting.appendleft((due, data[sent:]))

    def attempt(self, work, *args):
        try:
            work(*args)
        except OSError:
            self.broken = True

    def over(self):
        return self.ended and not self.waiting


def connect(listener, port):
    near, _ = listener.accept()
    far = socket.create_connection(("127.0.0.1", port))
    for each in near, far:
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        each.setblocking(False)
    ways = [Way(near, far), Way(far, near)]
    ways[0].back, ways[1].back = ways[1], ways[0]
    return ways


def serve(port, delay):
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    ways, got = [], []
    while sys.stdin not in got:
        now = time.monotonic()
        heads = [way.waiting[0][0] for way in ways if way.waiting]
        readable = {way.source: way for way in ways if not way.ended and way.size < UNDER_WAY}
        writable = {way.target: way for way in ways if way.waiting and way.waiting[0][0] <= now}
        pause = min((due - now for due in heads if due > now), default=None)
        got, free, _ = select.select([listener, sys.stdin, *readable], writable, [], pause)
        for side in free:
            writable[side].attempt(writable[side].hand_on)
        for side in got:
            if side in readable:
                readable[side].attempt(readable[side].take, delay)
        for way in ways:
            if way.broken or (way.over() and way.back.over()):
                way.broken = way.back.broken = True
                way.source.close()
                way.target.close()
        ways = [way for way in ways if not way.broken]
        if listener in got:
            ways += connect(listener, port)


if __name__ == "__main__":
    serve(int(sys.argv[1]), float(sys.argv[2]) / 1000)
