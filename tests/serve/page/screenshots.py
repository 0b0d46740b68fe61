"""Pictures of the page, behind the server and without one, on a desk and on a phone.

`scripts/screenshots RUN_DIR --output DIR [--picture FILE]`
"""

import functools
import http.server
import json
import re
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

from browser import CHROMIUM, DRIVER, Browser

from mnist_jax.command import Parser, run
from mnist_jax.errors import UserError
from mnist_jax.serve import demo

FIVE = json.loads((Path(__file__).parents[1] / "strokes.json").read_text())["5"]
WINDOWS = {
    "desk": {"width": 1200, "height": 760},
    "phone": {"width": 390, "height": 844, "is_phone": True},
}


def make_parser():
    parser = Parser("scripts/screenshots", __doc__)
    parser.add_argument("path", type=Path, help="the folder of a run, or a model repository")
    parser.add_argument("--output", type=Path, required=True, help="where the pictures go")
    parser.add_argument(
        "--picture", type=Path, help="shown to the model; without one, a five is drawn"
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
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make {options.output}: {error.strerror}; give another --output"
        ) from error
    for kind, start in (("server", served), ("static", hosted)):
        with start(options.path) as address:
            for window, size in WINDOWS.items():
                for scheme in ("light", "dark"):
                    with Browser(**size, scheme=scheme) as browser:
                        browser.open(address)
                        if options.picture is None:
                            browser.draw(FIVE)
                        else:
                            browser.upload(options.picture.resolve())
                            browser.wait(lambda browser=browser: browser.text("said"))
                        picture = options.output / f"{kind}_{window}_{scheme}.png"
                        browser.save(picture)
                    print(picture)
    return 0


if __name__ == "__main__":
    sys.exit(run(make_parser(), sys.argv[1:], take))
