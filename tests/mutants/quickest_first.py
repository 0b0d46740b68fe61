"""A pytest plugin of scripts/mutate: quick tests come first, so that most mutants fall at once."""

import json
from collections import Counter
from pathlib import Path


def pytest_collection_modifyitems(items):
    """Sorts the files by the time that their tests took, and the tests of a file likewise.

    Files stay together: their fixtures are made once.
    """
    stats = Path("mutmut-stats.json")
    if not stats.is_file():
        return
    seconds = json.loads(stats.read_text())["duration_by_test"]
    by_file = Counter()
    for item in items:
        by_file[item.path] += seconds.get(item.nodeid, 0)
    items.sort(key=lambda item: (by_file[item.path], str(item.path), seconds.get(item.nodeid, 0)))
