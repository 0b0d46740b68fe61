"""`scripts/build_demo PATH`: the page as a static site, with the models in the browser."""

import argparse
import base64
import hashlib
import io
import json
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mnist_jax.command import Parser, run, run_as_program
from mnist_jax.errors import UserError
from mnist_jax.export.session import open_session
from mnist_jax.repository.layout import Version
from mnist_jax.serve.model_file import read_model
from mnist_jax.serve.sources import Run, Source, find_source

HERE = Path(__file__).parent
PACKAGE = "onnxruntime-web@1.30.0"
PACKAGE_SHA512 = (
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
# Of the package, and on the site: some hosts do not know what an .mjs file is.
RUNTIME = {
    "package/dist/ort.wasm.bundle.min.mjs": "ort.wasm.bundle.min.js",
    "package/dist/ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
}
POLICY = "script-src 'self'"  # of index.html, where WebAssembly is to be allowed
FETCH_S = 600


def make_parser() -> Parser:
    """Returns the command line's parser."""
    parser = Parser("scripts/build_demo", __doc__)
    parser.add_argument("path", type=Path, help="the folder of a run, or a model repository")
    parser.add_argument(
        "--output", type=Path, required=True, help="the folder to make; it must not be there yet"
    )
    return parser


def build(options: argparse.Namespace) -> int:
    """Makes the site, and says how to look at it; returns 0."""
    make_site(options.path, options.output)
    files = [path for path in options.output.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    print(
        f"{options.output}: {size / 1e6:.1f} MB, for any static host; to look at it here:\n"
        f"  python3 -m http.server --bind 127.0.0.1 --directory {shlex.quote(str(options.output))}"
    )
    return 0


def make_site(path: Path, output: Path) -> None:
    """Makes the site beside its place, then puts it there.

    Args:
        path: the folder of a run, or a model repository, of which all versions are taken.
        output: the folder to make.

    Raises:
        UserError: the output is there already or cannot be written, a model is not what was
            verified or published, or the runtime cannot be had; nothing is left behind.
    """
    if output.exists():
        raise UserError(f"{output} is there already; remove it, or give another --output")
    source = find_source(path)
    if isinstance(source, Run) and not source.is_released:
        print("the criteria refused this run: the site is for a look only", file=sys.stderr)
    files = _read_models(source) | _fetch_runtime()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
            site = Path(folder) / "site"
            _copy_page(site)
            for name, content in files.items():
                (site / name).parent.mkdir(parents=True, exist_ok=True)
                (site / name).write_bytes(content)
            site.rename(output)
    except OSError as error:
        raise UserError(
            f"cannot write {output}: {error.strerror}; give another --output"
        ) from error


def _copy_page(site: Path) -> None:
    shutil.copytree(HERE / "page", site)
    shutil.copytree(HERE / "demo_page", site, dirs_exist_ok=True)
    index = site / "index.html"
    before, _, after = index.read_text().partition(POLICY)
    index.write_text(f"{before}{POLICY} 'wasm-unsafe-eval'{after}")


def _read_models(source: Source) -> dict[str, bytes]:
    """Returns every version, checked, and the `index.json` that tells the page of them, by path."""
    files, catalogue = {}, {}
    for name, listing in source.listings().items():
        if listing.champion is None:
            raise UserError(listing.problem)
        versions = [source.load(name, number) for number in sorted(listing.marks, reverse=True)]
        for version in versions:
            files[f"models/{name}/{version.number}/model.onnx"] = version.model
        catalogue[name] = {
            "champion": str(listing.champion),
            "versions": [str(version.number) for version in versions],
            "labels": {str(version.number): version.labels for version in versions},
            "models": {str(version.number): _describe(version) for version in versions},
        }
    return files | {"models/index.json": json.dumps(catalogue, indent=1).encode()}


def _describe(version: Version) -> dict[str, int | str]:
    """Returns what the page needs to know of a model, which its runtime does not tell it."""
    model = read_model(open_session(version.model, "disabled", 1), version.model_path)
    return {"side": model.side, "channels": model.channels, "preparation": model.rule}


def _fetch_runtime() -> dict[str, bytes]:
    """Returns, by path, the two files that are needed of a package of 33 MB.

    Raises:
        UserError: there is no npm, it cannot fetch the package, or the package is another.
    """
    package = _fetch_package()
    digest = base64.b64encode(hashlib.sha512(package).digest()).decode()
    if digest != PACKAGE_SHA512:
        raise UserError(
            f"{PACKAGE} has the SHA-512 {digest[:12]}..., which must be {PACKAGE_SHA512[:12]}...; "
            "see where npm takes packages from: npm config get registry"
        )
    files = {}
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        for member, name in RUNTIME.items():
            content = archive.extractfile(member)
            assert content is not None
            files[f"onnxruntime/{name}"] = content.read()
    return files


def _fetch_package() -> bytes:
    """Returns the package as npm has it in its cache or in its registry."""
    if shutil.which("npm") is None:
        raise UserError(f"npm, which fetches {PACKAGE}, is not on the PATH; install Node.js")
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", PACKAGE, "--prefer-offline", "--ignore-scripts", "--silent"]
        try:
            result = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=FETCH_S
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(
                f"npm took longer than {FETCH_S} s to fetch {PACKAGE}; check the connection"
            ) from error
        found = list(Path(folder).glob("*.tgz"))
        if result.returncode or len(found) != 1:
            reason = " ".join(result.stderr.split())[:200] or f"exit status {result.returncode}"
            raise UserError(
                f"npm cannot fetch {PACKAGE} ({reason}); check the connection, or npm's registry"
            )
        return found[0].read_bytes()


def main(arguments: Sequence[str]) -> int:
    """Returns 0 where the site was made, 2 on a mistake."""
    return run(make_parser(), arguments, build)


if __name__ == "__main__":
    run_as_program(main)
