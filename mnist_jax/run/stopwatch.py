"""How long the parts of a run took."""

import time

FIRST_STEP, TRAINING = "first step", "training"


class Phases:
    """A stopwatch that is read at the end of every part of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def end(self, name: str) -> None:
        """Gives what has passed since the last reading to the part `name`, which is over."""
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now

    def __str__(self) -> str:
        """Returns one line: up to the first step, training, from the last step to the verdict."""
        names = list(self.seconds)
        middle = names.index(TRAINING) if TRAINING in names else 0
        before, after = names[:middle], names[middle + (TRAINING in names) :]
        parts = [f"{self._sum(before)} to the first step{self._details(before)}"] if before else []
        parts += [f"{self._sum([TRAINING])} of training"] if TRAINING in names else []
        return ", ".join([*parts, f"{self._sum(after)} to the verdict{self._details(after)}"])

    def _sum(self, names: list[str]) -> str:
        return f"{sum(self.seconds[name] for name in names):.1f} s"

    def _details(self, names: list[str]) -> str:
        return " (" + ", ".join(f"{name} {self.seconds[name]:.1f}" for name in names) + ")"
