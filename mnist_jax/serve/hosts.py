"""The names in `Host` that are answered.

A page of another site whose name is made to lead here (DNS rebinding) would else read answers of a
server that only this machine should reach.
"""

import argparse
import functools
import ipaddress
import re
from collections.abc import Callable, Sequence

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
ALL = "*"
_NAME = r"[a-z0-9._-]+|\[[0-9a-f:.]+\]"


def allowed_hosts(address: str, host: str, more: Sequence[str]) -> list[str]:
    """Returns the names that are answered, `*.` for all below a domain, or `*` for all names.

    Args:
        address: that the server listens on; on loopback, loopback names are answered.
        host: the name or address that it was told to listen on.
        more: names to answer besides; elsewhere the only ones, where there are any.
    """
    if ipaddress.ip_address(address).is_loopback:
        return list(dict.fromkeys([*LOOPBACK_NAMES, host, *more]))
    return list(more) or [ALL]


def host_pattern(text: str) -> str:
    """Returns a name as `allowed_hosts` has it; raises ArgumentTypeError where it is not one."""
    if text != ALL and not re.fullmatch(rf"(\*\.)?({_NAME})", text, re.IGNORECASE):
        raise argparse.ArgumentTypeError(
            f"{text} is not a host; give a name without a port, *.NAME for all below it, or *"
        )
    return text


def make_rule(allowed: Sequence[str]) -> Callable[[str], bool]:
    """Returns whether a `Host`, with its port or without, is one of `allowed_hosts`."""
    if ALL in allowed:
        return lambda host: True
    names = frozenset(name.lower() for name in allowed)
    domains = tuple(name[1:] for name in names if name.startswith("*."))

    @functools.lru_cache  # a client may send any name, but mostly sends the one before
    def is_allowed(host: str) -> bool:
        parsed = re.fullmatch(rf"({_NAME})(:[0-9]+)?", host.lower())
        return parsed is not None and (parsed[1] in names or parsed[1].endswith(domains))

    return is_allowed
