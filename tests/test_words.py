"""Plain English in everything that a person reads: the word list of CONTRIBUTING, kept.

Of Python, the strings (docstrings, messages and help among them) and the comments are read; of
everything else, all of it. The tests themselves, and the log of experiments, which is history, are
left out.
"""

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOT = {
    "resume, continue": r"(?<!is )\b(go|goes|going|went|gone) on\b(?! (to|the|a|an|without)\b)",
    "accept, load, resume": r"\b(take[sn]?|taking|took) up\b",
    "check, compare": r"\b(hold|holds|held|holding) (\w+ ){0,4}against\b",
    "fix": r"\bmend(s|ed|ing)?\b",
    "again": r"\banew\b|\bonce more\b",
    "who, anyone who": r"\bwhoever\b",
    "is not a": r"(?<!there )\b(is|are) no (?!longer\b|more\b)",
    "checksum": r"\b(published|SHA-256) sums?\b|\bno sum\b|\bsums? of (a|the|each) file",
}
PATTERN = re.compile("|".join(f"(?:{words})" for words in NOT.values()), re.IGNORECASE)
READ = ("*.md", "*.py", "*.js", "*.mjs", "*.html", "*.json", "*.template", "*.yaml", "*.sbatch")
PLACES = ("mnist_jax", "scripts", "docs", "configs", "examples", "benchmarks", "deploy")


def files():
    found = [path for place in PLACES for kind in READ for path in (ROOT / place).rglob(kind)]
    found += [*ROOT.glob("*.md"), *(ROOT / "scripts").iterdir()]
    left_out = {ROOT / "docs" / "log.md", ROOT / "docs" / "results.json"}
    return sorted({path for path in found if path.is_file()} - left_out)


def text_of(path):
    """Returns what a person reads of a file, line breaks as spaces."""
    text = path.read_text(encoding="utf-8")
    if path.name == "CONTRIBUTING.md":  # its table of these words
        text = re.sub(r"\| not \| but \|.*?\n\n", "", text, flags=re.DOTALL)
    if path.suffix == ".py":
        kinds = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", None)}
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        text = "\n".join(token.string for token in tokens if token.type in kinds)
    return re.sub(r"[\s#]+", " ", text)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_it_reads_as_english(path):
    text = text_of(path)
    found = [text[max(0, m.start() - 40) : m.end() + 20] for m in PATTERN.finditer(text)]
    assert found == []


@pytest.mark.parametrize(
    ("text", "is_quaint"),
    [
        ("the run goes on from there", True),
        ("and the loop goes on", True),
        ("what is going on", False),
        ("it goes on the terminal", False),
        ("a file is held against its sum", True),
        ("this is no folder", True),
        ("there is no folder", False),
        ("it is no longer there", False),
        ("recommended", False),
        ("mend it anew", True),
    ],
)
def test_the_list_finds_what_it_should(text, is_quaint):
    assert bool(PATTERN.search(text)) == is_quaint
