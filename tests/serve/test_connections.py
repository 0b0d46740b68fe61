"""What a connection may do: each request gets one answer, in order, within limits."""

import contextlib
import json
import resource
import socket
import subprocess
import time

import pytest

from mnist_jax.serve.connections import MAX_CONNECTIONS
from tests.serve import raw
from tests.serve.raw import BODY, INFER, connect, exchange, post, read_all, statuses
from tests.waiting import HANG_S

CLOSE = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
UPGRADES = {
    "Java's HttpClient": [
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AA",
    ],
    "WebSocket": ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"],
    "TLS": ["Upgrade: TLS/1.0", "Connection: keep-alive, upgrade"],
}


@pytest.mark.parametrize("offer", UPGRADES)
@pytest.mark.parametrize("pieces", [1, 7], ids=["whole", "pieces"])
def test_an_upgrade_is_not_taken_up_and_the_body_is_read(server, offer, pieces):
    content = post(*UPGRADES[offer]) + CLOSE
    with connect(server) as connection:
        step = -(-len(content) // pieces)
        for start in range(0, len(content), step):
            connection.sendall(content[start : start + step])
            time.sleep(0.02)
        assert statuses(read_all(connection)) == [200, 200]


def test_the_body_of_an_upgrade_is_never_a_request(server):
    hidden = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for headers in UPGRADES.values():
        assert exchange(server, post(*headers, body=hidden) + CLOSE) == [400, 200]
        chunked = [*headers, "Transfer-Encoding: chunked"]
        head = "\r\n".join([f"POST {INFER} HTTP/1.1", "Host: localhost", *chunked, "", ""])
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(hidden), hidden)
        assert exchange(server, head.encode() + body + CLOSE) == [400, 200]


def test_curl_that_offers_http_2_is_answered(server):
    done = subprocess.run(
        ["curl", "-sSf", "--http2", "--data-binary", "@-", f"http://{server.http}{INFER}"],
        input=BODY,
        capture_output=True,
        timeout=HANG_S,
    )
    assert b'"scores"' in done.stdout, done.stderr


def test_a_request_that_breaks_the_rules_gets_one_refusal_and_the_end(server):
    chunked = f"POST {INFER} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
    for content in (
        b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v2 HTTP/3.0\r\nHost: localhost\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        (chunked + "Content-Length: 5\r\n\r\n0\r\n\r\n").encode(),
        (chunked + "\r\nffffffffffffffffff\r\n").encode(),
        (chunked + "\r\n5\r\nabcdefgh\r\n").encode(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,  # TLS
        b"\x00",
    ):
        (status,) = exchange(server, content + CLOSE)
        assert 400 <= status < 600 and status != 500, content


def test_a_broken_request_is_not_answered_before_the_one_in_front_of_it(server):
    for broken in (b"\x00", b"GET /v2 HTTP/1.1\r\n\r\n", post("Transfer-Encoding: chunked")):
        assert exchange(server, post() + broken + CLOSE) == [200]


def test_a_body_that_breaks_after_the_answer_gets_no_second_answer(server):
    head = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connect(server) as connection:
        connection.sendall(head)
        time.sleep(0.3)
        with contextlib.suppress(OSError):
            connection.sendall(b"no size\r\n" + CLOSE)
        assert statuses(read_all(connection)) == [200]


def test_pipelined_requests_are_answered_in_order_up_to_a_limit(server):
    many = b"".join(
        post() if n % 2 else CLOSE.replace(b"Connection: close\r\n", b"") for n in range(8)
    )
    assert exchange(server, many + CLOSE) == [200] * 9
    flood = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5000
    before = raw.resident_mb(server)
    assert set(exchange(server, flood, half_close=True)) == {200}
    assert raw.resident_mb(server) - before < 10


def test_a_client_that_half_closes_gets_its_answers(server):
    assert exchange(server, post(), half_close=True) == [200]
    assert exchange(server, post() + post(), half_close=True) == [200, 200]
    assert exchange(server, post()[:-1], half_close=True) == []
    assert exchange(server, b"GET /v2 HT", half_close=True) == []


GET = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = GET + b"Transfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "trailers": (CHUNKED + b"0\r\n", b"x: " + b"y" * 1000 + b"\r\n"),
    "one trailer": (CHUNKED + b"0\r\nx: ", b"y" * 1000),
    "chunk extension": (CHUNKED + b"1;", b"y" * 1000),
    "headers": (GET, b"x: " + b"y" * 1000 + b"\r\n"),
    "small headers": (GET, b"a:b\r\n" * 100),
    "one header": (GET + b"x: ", b"y" * 1000),
    "target": (b"GET /", b"y" * 1000),
    "line ends": (b"", b"\r\n" * 500),
    "body that nobody reads": (CHUNKED, b"ff000\r\n" + b"y" * 0xFF000 + b"\r\n"),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_nothing_of_a_request_is_endless(server, kind):
    start, more = ENDLESS[kind]
    before, is_ended = raw.resident_mb(server), False
    with connect(server) as connection:
        connection.sendall(start)
        try:
            for _ in range(20_000):
                connection.sendall(more)
        except OSError:
            is_ended = True
        found = b""
        with contextlib.suppress(OSError):
            found = connection.recv(1 << 16)
    assert is_ended or found == b"" or b"connection: close" in found
    assert len(statuses(found)) <= 1
    assert raw.resident_mb(server) - before < 20


def test_a_head_in_one_piece_has_limits_too(server):
    assert exchange(server, GET + b"x: " + b"y" * 100_000 + b"\r\n\r\n") == [431]
    assert exchange(server, GET + b"a:b\r\n" * 101 + b"\r\n") == [431]
    assert exchange(server, GET + b"a:b\r\n" * 90 + b"Connection: close\r\n\r\n") == [200]


def test_a_trailer_is_no_header(server):
    head = (
        f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    )
    body = b"%x;a=b\r\n%s\r\n0\r\nContent-Encoding: gzip\r\n\r\n" % (len(BODY), BODY)
    assert exchange(server, head + body + CLOSE) == [200, 200]


@pytest.mark.slow
def test_a_slow_body_ends_whether_or_not_it_is_read(serve, repository):
    with serve(repository) as server, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(server, 60)) for _ in range(3)]
        heads = [CHUNKED, CHUNKED.replace(b"GET /v2", f"POST {INFER}".encode()), b"\r\n"]
        for connection, head in zip(connections, heads, strict=True):
            connection.sendall(head)
        start, is_open = time.monotonic(), [True] * 3
        while any(is_open) and time.monotonic() - start < 60:
            time.sleep(0.5)
            for index, connection in enumerate(connections):
                with contextlib.suppress(TimeoutError):
                    connection.settimeout(0.01)
                    try:
                        connection.sendall(b"1\r\na\r\n" if index < 2 else b"\r\n")
                        is_open[index] &= connection.recv(1 << 16) != b""
                    except ConnectionError:
                        is_open[index] = False
        assert not any(is_open)
        assert time.monotonic() - start < 45


def test_a_client_that_reads_nothing_costs_little(server):
    before = raw.resident_mb(server)
    with connect(server) as connection, contextlib.suppress(OSError):
        connection.settimeout(2)
        for _ in range(2000):
            connection.sendall(GET + b"\r\n")
    assert raw.resident_mb(server) - before < 20


@pytest.mark.parametrize("coding", ["Identity", "IDENTITY", "identity"])
def test_identity_is_no_compression(server, coding):
    assert exchange(server, post(f"Content-Encoding: {coding}") + CLOSE) == [200, 200]


def assert_statuses(server, status, *names):
    found = {name: exchange(server, CLOSE.replace(b"localhost", name.encode())) for name in names}
    assert found == {name: [status] for name in names}


def test_only_names_of_this_machine_are_answered_on_loopback(serve, repository, server):
    assert_statuses(server, 200, "localhost", "LOCALHOST:1", "127.0.0.1:80", "[::1]:8080")
    assert_statuses(server, 400, "evil.example", "evil.example:8080", "127.0.0.1.evil.example")
    assert_statuses(server, 400, "localhost.evil", "a@localhost")
    flags = ("--allow-host=digits.example", "--allow-host=*.wide.example")
    with serve(repository, *flags) as allowing:
        assert_statuses(allowing, 200, "digits.example", "a.wide.example", "a.b.WIDE.example:1")
        assert_statuses(allowing, 200, "localhost")
        assert_statuses(allowing, 400, "evil.example", "wide.example", "a.digits.example")
        assert_statuses(allowing, 400, "a@b.wide.example", "[::2]")
    with serve(repository, "--host=0.0.0.0") as public:
        public.http = public.http.replace("0.0.0.0", "127.0.0.1")
        assert_statuses(public, 200, "any.example")


def test_a_refused_host_is_told_what_to_do(server):
    with connect(server) as connection:
        connection.sendall(CLOSE.replace(b"localhost", b"evil.example:1"))
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ") and b"x-content-type-options: nosniff" in head
    error = json.loads(body)["error"]
    assert "'evil.example:1'" in error and "localhost" in error and "--allow-host" in error


@pytest.fixture
def many_files():
    """Lets this process have a file open for each of its connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * MAX_CONNECTIONS + 512
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"this user may open {hard} files, and the test needs {needed}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def read_one(connection):
    """Reads one answer, whose head and body may come apart."""
    answer = b""
    while True:
        answer += connection.recv(1 << 16)
        head, end, body = answer.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().partition(b"content-length: ")[2].split()[0]):
            return answer


def test_connections_have_a_limit_and_those_before_it_go_on(serve, repository, many_files):
    ask = CLOSE.replace(b"Connection: close\r\n", b"")
    # The server has to raise the limit that most shells set.
    with serve(repository, num_files=1024) as server, contextlib.ExitStack() as stack:
        first = stack.enter_context(connect(server))
        first.sendall(ask)
        assert statuses(read_one(first)) == [200]
        for _ in range(MAX_CONNECTIONS - 1):
            stack.enter_context(connect(server))
        with connect(server) as further:
            further.sendall(ask)
            assert statuses(read_all(further)) == [503]
        first.sendall(ask)
        assert statuses(read_one(first)) == [200]
        for _ in range(MAX_CONNECTIONS):
            stack.enter_context(connect(server))
        with connect(server) as last, contextlib.suppress(ConnectionError):
            assert last.recv(1) == b""
        stack.pop_all().close()
        assert exchange(server, CLOSE) == [200]


def test_the_socket_is_taken_by_the_server_alone(server):
    """SO_REUSEPORT would let a second server share the port in silence."""
    with socket.socket() as other, pytest.raises(OSError):
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        host, port = server.http.split(":")
        other.bind((host, int(port)))
