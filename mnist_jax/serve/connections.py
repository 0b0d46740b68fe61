"""The HTTP server's connections: what uvicorn's quick parser leaves open, closed and bounded."""

import asyncio
import math
from http import HTTPStatus
from typing import Any

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_CONNECTIONS = 1024  # that are served; further ones get 503, and twice as many no answer
MAX_HEAD_BYTES = 64 << 10
MAX_HEADERS = 100
MAX_PIPELINED = 16  # requests that wait for the answer to another on their connection
MAX_HEAD_S = 10.0
MAX_FLUSH_S = 5.0
MAX_BODY_S = 30.0  # from a head's end
MAX_UNREAD_S = 35.0  # for an answer that the client does not read
MAX_MESSAGE_BYTES = 64 << 20  # of a body that nobody reads
CHUNK_BYTES = 12  # of a chunk's size and line ends, which an honest client needs


class _ViolationError(Exception):
    """A request that cannot be answered in any other way than by a refusal and the end."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class BoundedProtocol(HttpToolsProtocol):
    """Answers each request once, in order, and ends a connection that breaks a limit or the rules.

    uvicorn with httptools knows no limits on heads, chunk extensions, trailers and their time;
    drops the body of a request that offers an upgrade and reads it as the next request; answers
    a broken request before the one in front of it; and forgets a client that half-closes. Its
    limit on connections, once reached, refuses every request, also on those that were there before.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline = math.inf  # for what the client has to send next
        self._timer: asyncio.TimerHandle | None = None  # looks at the deadline
        self._timer_due = math.inf
        self._write_timer: asyncio.TimerHandle | None = None
        self._running: Any = None  # the cycle whose request is being answered
        self._is_in_body = False
        self._is_over = False  # nothing more is read
        self._is_surplus = False
        self._upgrade_head: bytes | None = None
        self._body_bytes = 0
        self._frame_bytes = 0  # received of the current request, without its body

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Starts the clock: the first request has to come."""
        super().connection_made(transport)
        self._is_surplus = len(self.connections) > MAX_CONNECTIONS
        if len(self.connections) > 2 * MAX_CONNECTIONS:
            transport.abort()
        else:
            self._start_clock(MAX_HEAD_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clock, and tells the application."""
        self._is_over = True
        for timer in (self._timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        self._tell_application()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Lets requests that came whole be answered although the client sends no more."""
        if self._is_in_body or not self._is_answering():
            return False
        self._end_after_answers()
        return True

    def data_received(self, data: bytes) -> None:
        """Counts what is outside the body, and parses."""
        if self._is_over:
            return
        self._frame_bytes += len(data)
        try:
            self._feed(data)
            if self._frame_bytes > MAX_HEAD_BYTES or len(self.headers or ()) > MAX_HEADERS:
                raise _too_long()
        except _ViolationError as error:
            self._refuse(error.status, str(error))
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, _ViolationError):
                self._refuse(cause.status, str(cause))
            else:
                self._refuse(400, "the bytes are not an HTTP/1.1 request")

    def _feed(self, data: bytes) -> None:
        """Parses; a request that offers an upgrade is parsed again as one that does not.

        A server may ignore such an offer (RFC 9110, 7.8). httptools cannot: it ends at the head.
        """
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if self._upgrade_head is None:  # CONNECT
                    raise _ViolationError(405, "CONNECT is not done here") from upgrade
                data = self._upgrade_head + data[upgrade.args[0] :]
                self._upgrade_head = None
                self.parser = httptools.HttpRequestParser(self)

    def on_message_begin(self) -> None:
        """Starts the clock for a request's head."""
        super().on_message_begin()
        self._start_clock(MAX_HEAD_S)

    def on_headers_complete(self) -> None:
        """Checks the head, sets the clock to the body, and starts the application."""
        num_hosts, num_bytes = 0, len(self.url)
        for name, value in self.headers:
            num_bytes += len(name) + len(value) + 4
            num_hosts += name == b"host"
        if num_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            raise _too_long()
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if self.parser.should_upgrade():
            if method != b"CONNECT":
                self._upgrade_head = self._without_upgrade(method, version)
            return
        if version not in ("1.0", "1.1"):
            raise _ViolationError(505, f"HTTP {version} is not spoken here; use 1.1")
        if num_hosts > 1 or (version == "1.1" and num_hosts == 0):
            raise _ViolationError(400, f"a request has {num_hosts} Host headers; it must have one")
        if self._is_surplus:
            raise _ViolationError(503, "too many connections are open; try again later")
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _ViolationError(429, "too many requests wait on this connection")
        super().on_headers_complete()
        self.headers = []  # for trailers, which must not act as headers
        self._is_in_body = True
        self._body_bytes = 0
        self._start_clock(MAX_BODY_S)

    def _without_upgrade(self, method: bytes, version: str) -> bytes:
        lines = [b"%s %s HTTP/%s" % (method, self.url, version.encode())]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def on_chunk_header(self) -> None:
        """Allows for what each chunk needs beside its bytes."""
        self._frame_bytes -= CHUNK_BYTES

    def on_body(self, body: bytes) -> None:
        """Counts a body, whether or not anybody reads it."""
        self._frame_bytes -= len(body)
        self._body_bytes += len(body)
        if self._body_bytes > MAX_MESSAGE_BYTES:
            raise _ViolationError(413, f"the body is longer than {MAX_MESSAGE_BYTES} bytes")
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stops the clock, or starts it for the next request where this one has its answer."""
        if self._upgrade_head is not None or not self._is_in_body:
            return  # the head of an offered upgrade: its body follows
        self._is_in_body = False
        self._frame_bytes = 0
        super().on_message_complete()
        if self._is_answering():
            self._stop_clock()
        else:
            self._start_clock(self.timeout_keep_alive)

    def on_response_complete(self) -> None:
        """As uvicorn's, but with the one clock instead of a timer for each answer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._deadline == math.inf:  # no request has begun
            self._start_clock(self.timeout_keep_alive)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _is_answering(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _end_after_answers(self) -> None:
        """Reads no more; the connection ends with the last answer that is due."""
        self._is_over = True
        self._stop_clock()
        (self.pipeline[0][0] if self.pipeline else self._running).keep_alive = False

    def _refuse(self, status: int, message: str) -> None:
        """Ends the connection, with a refusal where it is this request's turn and it has none."""
        broken = self.cycle if self._is_in_body else None
        if broken is not None and any(cycle is broken for cycle, _ in self.pipeline):
            self.pipeline.popleft()  # the latest; those in front of it are answered
        elif broken is not None:
            if not broken.response_started:
                self._write_refusal(status, message)
            self._close()
            return
        if self._is_answering():
            self._end_after_answers()
            return
        self._write_refusal(status, message)
        self._close()

    def _write_refusal(self, status: int, message: str) -> None:
        body = orjson.dumps({"error": message})
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()]
        lines += [b"%s: %s" % header for header in headers]
        self.transport.write(b"\r\n".join([*lines, b"", body]))

    def _close(self) -> None:
        """Ends the connection, once the client has what is written or does not take it."""
        self._is_over = True
        self._tell_application()
        self.transport.close()
        self._start_clock(MAX_FLUSH_S)

    def _tell_application(self) -> None:
        """Says that there is nobody to answer."""
        for cycle in (self._running, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def pause_writing(self) -> None:
        """Gives a client that does not read its answers a limited time."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(MAX_UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        if self._write_timer is not None:
            self._write_timer.cancel()
        super().resume_writing()

    def _start_clock(self, seconds: float) -> None:
        """Sets the deadline. A timer that is due before it is left: to move one is dear."""
        self._deadline = self.loop.time() + seconds
        if self._timer is None or self._timer_due > self._deadline:
            self._set_timer()

    def _stop_clock(self) -> None:
        self._deadline = math.inf

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = self._deadline
        self._timer = self.loop.call_at(self._deadline, self._look_at_clock)

    def _look_at_clock(self) -> None:
        self._timer = None
        if self._deadline <= self._timer_due:
            self._time_out()
        elif self._deadline < math.inf:
            self._set_timer()

    def _time_out(self) -> None:
        """Ends a connection whose request is too slow; what was answered before is still sent."""
        if self.transport.is_closing():
            self.transport.abort()
        elif self._is_in_body:
            self._refuse(408, f"the body took longer than {MAX_BODY_S:g} s")
        elif self._is_answering():
            self._end_after_answers()
        else:
            self._close()


def _too_long() -> _ViolationError:
    return _ViolationError(
        431, f"headers are longer than {MAX_HEAD_BYTES} bytes or more than {MAX_HEADERS}"
    )
