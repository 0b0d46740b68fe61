"""The README's pictures of a run: its verdict on a terminal, its card, the page that serves it.

`scripts/screenshots RUN_DIR` makes them in docs/images/; with `--output DIR` it takes the page
there, behind the server and without one, on a desk and on a phone, light and dark.

    scripts/screenshots RUN_DIR [--output DIR [--picture FILE]]
"""

import functools
import http.server
import io
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from browser import CHROMIUM, DRIVER, Browser
from PIL import Image
from rich.console import Console

from mnist_jax.card import model_card
from mnist_jax.command import Parser, run
from mnist_jax.errors import UserError
from mnist_jax.files import sha256, write_json, write_text
from mnist_jax.release import shown
from mnist_jax.release.records import read_release
from mnist_jax.run import paths
from mnist_jax.serve import demo

ROOT = Path(__file__).parents[3]
IMAGES = ROOT / "docs" / "images"
# What the pictures show: where one of these has changed, they are made again.
SOURCES = ("mnist_jax/serve/page/*", "mnist_jax/card/*.template", "mnist_jax/card/html.py")
SOURCES += ("mnist_jax/card/model_card.py", "mnist_jax/card/sections.py")
SOURCES += ("mnist_jax/release/shown.py",)
COMMAND = "$ scripts/train --config=configs/digits_cnn_v1.py --output-dir run"
README_WINDOW = {"width": 860, "height": 760}

FIVE = json.loads((Path(__file__).parents[1] / "strokes.json").read_text())["5"]
WINDOWS = {
    "desk": {"width": 1200, "height": 760},
    "phone": {"width": 390, "height": 844, "is_phone": True},
}


def make_parser():
    parser = Parser("scripts/screenshots", __doc__)
    parser.add_argument("path", type=Path, help="the folder of a run, or a model repository")
    parser.add_argument("--output", type=Path, help="take all looks of the page, there")
    parser.add_argument(
        "--picture", type=Path, help="shown to the model there; without one, a five is drawn"
    )
    return parser


@contextmanager
def served(path):
    """Runs the real server; gives its address."""
    command = [sys.executable, "-m", "mnist_jax.serve", str(path), "--port=0", "--grpc-port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            found = None
            while found is None:
                line = process.stdout.readline()
                if not line:
                    raise UserError(f"the server of {path} does not start; see above")
                found = re.search(r"at (http://[^\s,]+)", line)
            yield found[1]
        finally:
            process.terminate()
            process.communicate()


@contextmanager
def hosted(path):
    """Builds the static site and hosts it; gives its address."""
    with tempfile.TemporaryDirectory() as folder:
        demo.make_site(path, Path(folder) / "demo")
        handler = functools.partial(Quiet, directory=folder)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever).start()
            try:
                yield f"http://127.0.0.1:{server.server_port}/demo/"
            finally:
                server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def take(options):
    if CHROMIUM is None or DRIVER is None:
        raise UserError(
            "Chromium or its driver is not on the PATH; apt-get install chromium chromium-driver"
        )
    folder = options.output or IMAGES
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror}; give another --output") from error
    if options.output is None:
        take_for_readme(options.path, folder)
    else:
        take_all_looks(options.path, folder, options.picture)
    return 0


def take_for_readme(run_dir, folder):
    write_text(folder / "terminal.svg", terminal(run_dir))
    with Browser(**README_WINDOW) as browser:
        browser.driver.get((run_dir / model_card.PAGE).resolve().as_uri())
        save_small(browser, folder / "card.png")
    with served(run_dir) as address, Browser(**README_WINDOW) as browser:
        browser.open(address)
        browser.draw(FIVE)
        save_small(browser, folder / "page.png")
    sources = sorted(path for pattern in SOURCES for path in ROOT.glob(pattern))
    sums = {str(path.relative_to(ROOT)): sha256(path) for path in sources if path.is_file()}
    write_json(folder / "sources.json", sums)
    print(*sorted(folder.iterdir()), sep="\n")


def terminal(run_dir):
    """Draws the end of a run as its terminal showed it: the last of its log, and the table."""
    console = Console(width=80, record=True, file=io.StringIO(), force_terminal=True)
    lines = [
        line.split(" INFO ", 1)[1]
        for line in (run_dir / paths.LOG).read_text().splitlines()
        if " INFO " in line and " time: " not in line
    ]
    before = [line.replace(str(run_dir), "run") for line in lines[:-1]]
    console.print(COMMAND, style="bold", highlight=False)
    console.print("...", style="dim")
    for line in before[-5:]:
        console.print(line, highlight=False, markup=False)
    console.print(shown.table(read_release(run_dir)))
    drawn = console.export_svg(title="scripts/train", unique_id="terminal")
    # Its fonts would be fetched from elsewhere.
    return re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)


def save_small(browser, path):
    """Saves what the window shows in 64 colours: it has hardly more."""
    time.sleep(0.3)  # until the bars have moved
    with Image.open(io.BytesIO(browser.driver.get_screenshot_as_png())) as picture:
        picture.convert("RGB").quantize(64).save(path, optimize=True)


def take_all_looks(path, folder, picture):
    for kind, start in (("server", served), ("static", hosted)):
        with start(path) as address:
            for window, size in WINDOWS.items():
                for scheme in ("light", "dark"):
                    with Browser(**size, scheme=scheme) as browser:
                        browser.open(address)
                        if picture is None:
                            browser.draw(FIVE)
                        else:
                            browser.upload(picture.resolve())
                            browser.wait(lambda browser=browser: browser.text("said"))
                        target = folder / f"{kind}_{window}_{scheme}.png"
                        browser.save(target)
                    print(target)


if __name__ == "__main__":
    sys.exit(run(make_parser(), sys.argv[1:], take))
