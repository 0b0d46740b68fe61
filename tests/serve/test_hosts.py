import argparse
import asyncio

import pytest

from mnist_jax.serve.hosts import allowed_hosts, host_pattern
from mnist_jax.serve.rest import refuse_other_hosts


def status(host, allowed):
    """What a request with this `Host` gets."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "headers": [(b"host", host.encode())], "method": "GET", "path": "/"}
    asyncio.run(refuse_other_hosts(app, allowed)(scope, None, send))  # pyright: ignore[reportArgumentType]
    return sent[0]["status"]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", 200),
        ("LOCALHOST:8080", 200),
        ("[::1]:8080", 200),
        ("a.wide.example", 200),
        ("digits.example:1", 200),
        ("wide.example", 400),
        ("notwide.example", 400),
        ("*.wide.example", 400),
        ("localhost:80:80", 400),
        ("localhost.evil.example", 400),
        ("", 400),
    ],
)
def test_a_host_is_answered_if_it_was_named(host, expected):
    assert (
        status(host, allowed_hosts("::1", "::1", ["digits.example", "*.wide.example"])) == expected
    )


def test_elsewhere_than_on_loopback_all_are_answered_unless_some_are_named():
    assert status("any.example", allowed_hosts("0.0.0.0", "", [])) == 200
    assert status("any.example", allowed_hosts("0.0.0.0", "", ["digits.example"])) == 400


def test_each_name_is_told_once():
    assert allowed_hosts("127.0.0.1", "127.0.0.1", ["a.example"]) == [
        *("localhost", "127.0.0.1", "[::1]", "a.example"),
    ]


@pytest.mark.parametrize(
    ("address", "host"),
    [("127.0.1.1", "this-machine"), ("127.0.0.1", "127.1"), ("127.0.0.1", "LOCALHOST")],
)
def test_loopback_is_loopback_however_it_is_spelt(address, host):
    hosts = allowed_hosts(address, host, [])
    assert status("evil.example", hosts) == 400
    assert status(host, hosts) == status("localhost", hosts) == 200


@pytest.mark.parametrize("text", ["", "a b", "http://a.example", "a.example:80", "a.*.example"])
def test_what_is_not_a_host_is_refused_where_it_is_given(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a host"):
        host_pattern(text)


@pytest.mark.parametrize("text", ["*", "*.a.example", "a_b.example", "[::1]", "127.0.0.1"])
def test_what_is_a_host_passes(text):
    assert host_pattern(text) == text
