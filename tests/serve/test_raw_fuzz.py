"""Raw HTTP/1.1 that nobody thought of: one answer at most for each request, no hang, no growth."""

import random
import re
import socket
import threading
import time

import pytest

from tests.serve.raw import BODY, INFER, connect, read_all, resident_mb, statuses

SMALL = b'{"inputs": []}'
HIDDEN = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
UPGRADES = ("h2c", "websocket", "TLS/1.0", "HTTP/2.0", "")
LAST = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def chunk(draw, body):
    """A body in chunks, with extensions and trailers."""
    parts, start = [], 0
    while start < len(body):
        size = draw.randrange(1, len(body) - start + 1)
        extension = draw.choice(("", ";a", ";a=b", ';a="b;c"', ";" + "x" * draw.choice((10, 300))))
        parts.append(b"%x%s\r\n%s\r\n" % (size, extension.encode(), body[start : start + size]))
        start += size
    trailers = draw.choice((b"", b"x: y\r\n", b"x: y\r\n" * 40))
    return b"".join(parts) + b"0\r\n" + trailers + b"\r\n"


def make_request(draw):
    """A request that is right but for what it offers: upgrades, chunks, trailers."""
    method, path = draw.choice((("POST", INFER), ("GET", "/v2"), ("GET", "/x"), ("HEAD", "/v2")))
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if draw.random() < 0.3:
        lines += ["Connection: Upgrade, HTTP2-Settings", f"Upgrade: {draw.choice(UPGRADES)}"]
    if draw.random() < 0.1:
        lines.append("Expect: 100-continue")
    body = (
        draw.choice((BODY, SMALL, HIDDEN, b"")) if method == "POST" or draw.random() < 0.3 else b""
    )
    if body and draw.random() < 0.5:
        lines.append("Transfer-Encoding: chunked")
        body = chunk(draw, body)
    elif body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body, method == "HEAD"


def damage(draw, content):
    """Other bytes, some missing, some twice, line ends of other kinds."""
    start = draw.randrange(len(content) + 1)
    kind = draw.randrange(5)
    if kind == 0:
        return content[:start]
    if kind == 1:
        return content[:start] + draw.randbytes(draw.randrange(1, 20)) + content[start:]
    if kind == 2:
        return content[:start] + content[draw.randrange(start, len(content) + 1) :]
    if kind == 3:
        return content.replace(
            b"\r\n", draw.choice((b"\n", b"\r", b"\r\r\n")), draw.randrange(1, 4)
        )
    return content[:start] + content[max(0, start - 40) :]


def play(server, draw):
    """One connection's talk; raises AssertionError where it is not as it should be."""
    requests = [make_request(draw) for _ in range(draw.choice((1, 1, 2, 3, 8)))]
    content = b"".join(request for request, _ in requests)
    num_sent, is_whole = len(requests), draw.random() < 0.5
    if is_whole:
        content, num_sent = content + LAST, num_sent + 1
    else:
        content = damage(draw, content)
        # What is damaged may hold further request lines, and each of those may be answered.
        num_sent = max(num_sent, len(re.findall(rb"HTTP/1", content))) + 1
    with connect(server, 20) as connection:
        try:
            step = draw.choice((1 << 20, 1 << 20, 1000, 50)) if len(content) < 4000 else 1 << 20
            for start in range(0, len(content), step):
                connection.sendall(content[start : start + step])
            if not is_whole or draw.random() < 0.3:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        found = read_all(connection)
    if any(is_head for _, is_head in requests):
        found = re.sub(rb"(?im)^content-length: \d+\r\n(?=(?:.+\r\n)*\r\n(?:HTTP/|\Z))", b"", found)
    answers = statuses(found)
    assert len(answers) <= num_sent, (content, answers)
    assert 500 not in answers, content
    if is_whole:
        assert len(answers) == num_sent and answers[-1] == 200, (content, answers)


def fuzz(server, num_cases, num_threads=4):
    failures = []

    def work(seed):
        for case in range(num_cases // num_threads):
            try:
                play(server, random.Random(f"{seed} {case}"))
            except Exception as error:
                failures.append((seed, case, error))
                return

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def test_talk_that_is_odd_or_broken_is_answered_once_each(server):
    fuzz(server, 400)


@pytest.mark.slow
def test_ten_thousand_talks_leave_no_trace(server):
    fuzz(server, 2_000)
    before, start = resident_mb(server), time.monotonic()
    fuzz(server, 10_000)
    assert resident_mb(server) - before < 15
    assert time.monotonic() - start < 600
