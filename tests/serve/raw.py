"""HTTP/1.1 spoken byte by byte, for what no client library would send."""

import json
import re
import socket
import time
from pathlib import Path

INFER = "/v2/models/digits/infer"
BODY = json.dumps(
    {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 28, 28], "data": [0] * 784}]}
).encode()


def post(*headers, body=BODY, path=INFER):
    """A whole request with a body, as bytes."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def connect(server, timeout=20):
    host, port = server.http.split(":")
    return socket.create_connection((host, int(port)), timeout)


def read_all(connection):
    """All that comes until the server ends the connection."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def exchange(server, content, half_close=False):
    """Sends bytes, and returns the statuses of all answers up to the connection's end."""
    with connect(server) as connection:
        try:
            connection.sendall(content)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the server may have ended it
        return statuses(read_all(connection))


def statuses(content):
    """The statuses of the answers in bytes, which must be whole answers and nothing else."""
    found = []
    while content:
        head, end, rest = content.partition(b"\r\n\r\n")
        assert end and head.startswith(b"HTTP/1.1 "), content[:200]
        status = int(head[9:12])
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        size = int(length[1]) if length else 0
        assert len(rest) >= size, (head, len(rest))
        content = rest[size:]
        if status != 100:
            found.append(status)
    return found


def resident_mb(server):
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def seconds_of(act):
    start = time.monotonic()
    act()
    return time.monotonic() - start
