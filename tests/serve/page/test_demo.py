"""The static site: what is in it, what stops its making, and its scores beside the server's."""

import base64
import functools
import hashlib
import http.server
import io
import json
import re
import tarfile
import threading

import numpy as np
import pytest

from mnist_jax import command
from mnist_jax.files import sha256, write_json
from mnist_jax.run import paths
from mnist_jax.serve import demo

RUNTIME = {member: f"content of {member}".encode() for member in demo.RUNTIME}


def build(*arguments):
    return command.run(demo.make_parser(), [str(argument) for argument in arguments], demo.build)


def package(files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Puts a program in npm's place: `npm(script)`, of sh."""
    (tmp_path / "bin").mkdir()

    def put(script):
        program = tmp_path / "bin" / "npm"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    (tmp_path / "package.tgz").write_bytes(package(RUNTIME))
    put(f'[ "$1 $2" = "pack {demo.PACKAGE}" ] && /bin/cp {tmp_path}/package.tgz .')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return put


@pytest.fixture
def trusted(npm, tmp_path, monkeypatch):
    """Takes the package above for the real one."""
    digest = hashlib.sha512((tmp_path / "package.tgz").read_bytes()).digest()
    monkeypatch.setattr(demo, "PACKAGE_SHA512", base64.b64encode(digest).decode())


@pytest.mark.parametrize("dataset_id", ["../../../outside", "/outside", "..", "a/../../../b", ""])
def test_a_crafted_run_writes_nothing_outside(dataset_id, trusted, tmp_path, make_model):
    run, site = tmp_path / "run", tmp_path / "a" / "b" / "site"
    (run / "models").mkdir(parents=True)
    model = make_model(run / paths.EXPORTED["onnx"], (1, 28, 28), 10)
    dataset = {"dataset_id": dataset_id, "class_names": list("0123456789")}
    write_json(run / paths.CONFIG, {"dataset": dataset})
    write_json(run / paths.VERIFICATION, {"files": {"onnx": {"sha256": sha256(model)}}})
    write_json(run / paths.RELEASE, {"verdict": "released"})
    before = {path for path in tmp_path.rglob("*")}
    assert build(run, "--output", site) == 0
    made = {path for path in tmp_path.rglob("*")} - before
    assert all(path in site.parents or path.is_relative_to(site) for path in made)
    (name,) = json.loads((site / "models" / "index.json").read_text())
    assert (site / "models" / name / "1" / "model.onnx").is_file()


def test_the_site_is_complete_and_names_no_other_host(run, trusted, tmp_path, capsys):
    site = tmp_path / "sites" / "demo"
    assert build(run, "--output", site) == 0
    assert f"{site}: " in capsys.readouterr().out
    model = (run / "models" / "mnist_model.onnx").read_bytes()
    assert (site / "models" / "digits_v1" / "1" / "model.onnx").read_bytes() == model
    assert json.loads((site / "models" / "index.json").read_text()) == {
        "digits_v1": {
            "champion": "1",
            "versions": ["1"],
            "labels": {"1": list("0123456789")},
            "models": {"1": {"side": 28, "channels": 1, "preparation": "ink"}},
        }
    }
    for member, name in demo.RUNTIME.items():
        assert (site / "onnxruntime" / name).read_bytes() == RUNTIME[member]
    assert "script-src 'self' 'wasm-unsafe-eval';" in (site / "index.html").read_text()
    for path in [*site.glob("*.html"), *site.glob("*.css"), *site.glob("*.js")]:
        assert not re.search(r"""["'(]/|https?:""", path.read_text()), f"{path.name}: no such site"
    assert {path.name for path in site.parent.iterdir()} == {"demo"}


def test_a_repository_gives_every_version(repository, models, trusted, tmp_path):
    assert build(repository, "--output", tmp_path / "demo") == 0
    catalogue = json.loads((tmp_path / "demo" / "models" / "index.json").read_text())
    assert catalogue["digits"]["champion"] == "1"
    assert catalogue["digits"]["versions"] == ["2", "1"]
    for number, model in enumerate(models, 1):
        path = tmp_path / "demo" / "models" / "digits" / str(number) / "model.onnx"
        assert path.read_bytes() == model


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, r"npm, which fetches onnxruntime-web@[\d.]+, is not on the PATH; install Node.js"),
        ("echo no network >&2; exit 1", r"npm cannot fetch onnxruntime-web@\S+ \(no network\)"),
        ("exit 0", r"npm cannot fetch onnxruntime-web@\S+ \(exit status 0\)"),
        ("echo changed > onnxruntime.tgz", r"has the SHA-512 \S+, which must be q0y\+JrrtukXS"),
    ],
)
def test_without_the_runtime_there_is_no_site(script, message, run, npm, tmp_path, capsys):
    if script is None:
        (tmp_path / "bin" / "npm").unlink()
    else:
        npm(script)
    assert build(run, "--output", tmp_path / "sites" / "demo") == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1
    assert not (tmp_path / "sites").exists()


def test_what_is_there_is_left_alone(run, tmp_path, capsys):
    (tmp_path / "demo").mkdir()
    assert build(run, "--output", tmp_path / "demo") == 2
    assert "demo is there already; remove it, or give another --output" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_named(run, trusted, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert build(run, "--output", tmp_path / "file" / "demo") == 2
    assert re.search("cannot write .*file/demo: .*; give another --output", capsys.readouterr().err)


def test_what_is_no_run_is_refused(tmp_path, capsys):
    assert build(tmp_path, "--output", tmp_path / "demo") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "demo").exists()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def host(tmp_path):
    """A static host of what is in `tmp_path / "host"`: its address."""
    handler = functools.partial(Quiet, directory=tmp_path / "host")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


# In place of the runtime: its models are of any bytes, and say 3.
ANY_RUNTIME = """
export const env = { wasm: {} };
export class Tensor {}
const scores = { data: Float32Array.from({ length: 10 }, (_, i) => Number(i === 3)) };
export const InferenceSession = { create: async () => ({ run: async () => ({ scores }) }) };
"""
# The second version's model comes as the test gives it: `download`.
HOLD = """
const real = fetch;
window.fetch = (address, ...rest) => {
  if (!address.includes('/2/')) return real(address, ...rest);
  const start = (controller) => { window.download = controller; };
  return Promise.resolve(new Response(new ReadableStream({ start })));
};
"""


def test_a_model_that_is_not_waited_for_any_more_changes_nothing(
    browser, repository, trusted, host, tmp_path
):
    assert build(repository, "--output", tmp_path / "host") == 0
    runtime = tmp_path / "host" / "onnxruntime" / demo.RUNTIME[next(iter(demo.RUNTIME))]
    runtime.write_text(ANY_RUNTIME)
    browser.open(f"{host}/")
    browser.draw([[[140, 60], [140, 220]]])
    browser.script(HOLD)
    for end in ("error", "close"):
        browser.script("window.download = null")
        browser.choose("version", "2")
        browser.wait(lambda: browser.script("return Boolean(download)"))
        browser.choose("version", "1, champion")
        browser.wait(lambda: browser.text("latency").startswith("digits, version 1: "))
        for event in ("enqueue(new Uint8Array(1e6))", f"{end}()"):
            browser.script(f"download.{event}; return new Promise(done => setTimeout(done))")
            assert browser.text("latency").startswith("digits, version 1: ")
            assert browser.text("answer") == "3"
            assert not browser.script("return retry.checkVisibility()")


@pytest.mark.network
def test_the_site_gives_the_scores_of_the_server(
    browser, repository, serve, host, strokes, tmp_path
):
    assert build(repository, "--output", tmp_path / "host" / "below" / "demo") == 0
    found = {}
    with serve(repository) as server:
        for address in (f"http://{server.http}/", f"{host}/below/demo/"):
            browser.complaints()
            browser.open(address)
            for digit, lines in strokes.items():
                browser.draw(lines)
                found.setdefault(digit, []).append((browser.seen(), browser.scores()))
                browser.clear()
            browser.draw(strokes["3"])
            browser.choose("version", "2")
            browser.wait(lambda: browser.text("latency").startswith("digits, version 2: "))
            found.setdefault("3, version 2", []).append((browser.seen(), browser.scores()))
            assert browser.complaints() == []
            assert all(one.startswith(address) for one in browser.addresses())
    assert browser.text("latency").endswith(" ms in this browser")
    for (seen, scores), (seen_here, scores_here) in found.values():
        np.testing.assert_array_equal(seen_here, seen)
        np.testing.assert_allclose(scores_here, scores, rtol=0, atol=1e-5)
