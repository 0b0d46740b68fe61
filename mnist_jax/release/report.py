"""What a verification finds: every check runs, and every failure is collected."""

from collections.abc import Iterator
from contextlib import contextmanager

from mnist_jax.errors import first_line
from mnist_jax.release.records import Check, FileFacts, Latency, ParityRow


class Report:
    """What was found so far."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.checks: list[Check] = []
        self.files: dict[str, FileFacts] = {}
        self.parity: list[ParityRow] = []
        self.latency: Latency | None = None

    @contextmanager
    def check(self, name: str, detail: str = "") -> Iterator[list[str]]:
        """Records one check; the block adds what is wrong to the list, or raises."""
        problems: list[str] = []
        try:
            yield problems
        except Exception as error:  # a broken file can break a library in any way
            problems.append(first_line(error))
        detail = "; ".join(problems) or detail
        self.checks.append({"name": name, "passed": not problems, "detail": detail})
        self.failures += [f"{name}: {problem}" for problem in problems]
