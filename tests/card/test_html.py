"""The card as a page: it needs nothing else, and shows what the Markdown says and no more."""

import base64
import html
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from mnist_jax.card import html as html_card

CARD = """---
license: mit
---

# a\\_b on c &amp; d

> **RELEASED.** All 2 criteria passed.

| name | SHA-256 |
| --- | --- |
| file | {sha} |

<img src="plots/one.png" width="20" alt="a picture">

<details>
<summary>folded</summary>

| check |
| --- |
| &lt;script>alert(1)&lt;/script> |

</details>

```python
print("<b>")
```
"""


class Seen(HTMLParser):
    """The tags of a page, their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in ("meta", "img", "hr", "br", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "title"} & set(self.open):
            self.text.append(data)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "plots").mkdir()
    levels = np.arange(800, dtype=np.uint8).reshape(20, 40)
    Image.fromarray(levels).save(tmp_path / "plots" / "one.png")
    return tmp_path


@pytest.fixture
def page(folder):
    return html_card.page(CARD.format(sha="ab" * 32), folder, is_released=True)


def test_a_page_loads_nothing_and_runs_nothing(page):
    seen = Seen(page)
    assert seen.open == []
    assert "script" not in seen.tags and "link" not in seen.tags and "iframe" not in seen.tags
    places = [value for _, name, value in seen.attributes if name in ("src", "href")]
    assert len(places) == 1 and places[0].startswith("data:image/png;base64,")
    assert not [name for _, name, _ in seen.attributes if name.startswith("on")]
    assert "default-src 'none'" in page


def test_pictures_are_inside(page, folder):
    (encoded,) = re.findall(r"base64,([^\"]+)", page)
    shown = base64.b64decode(encoded)
    assert shown == (folder / "plots" / "one.png").read_bytes()
    assert Image.open(io.BytesIO(shown)).size == (40, 20)


def test_the_text_is_the_cards_without_its_metadata(page):
    text = "".join(Seen(page).text)
    for shown in ("a_b on c & d", "RELEASED.", "<script>alert(1)</script>", 'print("<b>")'):
        assert shown in text
    assert "license" not in text and "| ---" not in text
    assert "<title>a_b on c &amp; d</title>" in page


def test_a_short_name_can_break_after_its_underscores(folder):
    page = html_card.page("| criterion |\n| --- |\n| worst_class |\n", folder, is_released=True)
    assert '<td class="short">worst_<wbr>class</td>' in page
    assert "worst_class" in "".join(Seen(page).text)


def test_the_verdict_has_its_colour_and_the_same_card_gives_the_same_bytes(page, folder):
    card = CARD.format(sha="ab" * 32)
    assert html_card.page(card, folder, is_released=True) == page
    assert "--mark: var(--good)" in page
    assert "--mark: var(--bad)" in html_card.page(card, folder, is_released=False)


def test_a_run_has_the_page_of_its_card(released):
    folder = released / "run" / "model_card"
    page = (folder / "model_card.html").read_text()
    seen = Seen(page)
    assert seen.tags.count("img") == len(list((folder / "plots").glob("*.png"))) > 3
    text = "".join(seen.text)
    card = ModelCard((folder / "mnist_model_card.md").read_text()).text
    for cell in re.findall(r"^\| (\w+) \|", card, re.MULTILINE):
        assert html.unescape(cell) in text
