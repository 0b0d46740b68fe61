"""The model card as one page for a browser: pictures inside, nothing loaded from elsewhere."""

import base64
import html
import re
from importlib import resources
from pathlib import Path
from string import Template

from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

_PICTURE = re.compile(r'src="(plots/\w+\.png)"')
_HASH = re.compile(r"<td>([0-9a-f]{64})</td>")
_SHORT = re.compile(r"<td>([^<]{1,24})</td>")  # stays on one line, but for a phone


def page(card: str, folder: Path, *, is_released: bool) -> str:
    """Returns the HTML of a card; the same card and pictures give the same text.

    Args:
        card: the card's Markdown, in which every string from a file is escaped; the metadata above
            it is left out.
        folder: where the card lies, and its pictures in `plots/`.
        is_released: what colour the verdict has.
    """
    text = ModelCard(card).text
    body = MarkdownIt("commonmark").enable("table").render(text)

    def embedded(match: re.Match[str]) -> str:
        picture = base64.b64encode((folder / match[1]).read_bytes()).decode()
        return f'src="data:image/png;base64,{picture}"'

    body = _PICTURE.sub(embedded, body)
    body = _HASH.sub(r'<td class="hash">\1</td>', body)
    body = body.replace("<td><strong>FAIL</strong>", '<td class="fail"><strong>FAIL</strong>')
    body = _SHORT.sub(_short, body)
    # A wide table scrolls by itself on a phone; the page does not.
    body = body.replace("<table>", '<div class="table"><table>').replace(
        "</table>", "</table></div>"
    )
    title = re.search(r"<h1>(.*?)</h1>", body, re.DOTALL)
    source = resources.files("mnist_jax.card").joinpath("model_card.html.template")
    return Template(source.read_text(encoding="utf-8")).substitute(
        title=html.escape(html.unescape(title[1])) if title else "Model card",
        mark="good" if is_released else "bad",
        body=body,
    )


def _short(match: re.Match[str]) -> str:
    """Returns a short cell; where it must break, a name breaks after its underscores."""
    return f'<td class="short">{match[1].replace("_", "_<wbr>")}</td>'
