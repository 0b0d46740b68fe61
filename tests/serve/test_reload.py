"""The repository changes while the server answers: nothing is lost, nothing wrong is served."""

import errno
import json
import logging
import os
import random
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import orjson
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
import urllib3

from mnist_jax.serve import models as serving
from mnist_jax.serve.models import Models
from mnist_jax.serve.sources import Repository
from tests.waiting import HANG_S


class Load:
    """Clients that ask as fast as they can; every answer is compared with ONNX Runtime's."""

    def __init__(self, server, images, expected, num_clients=6):
        self.server, self.images, self.expected = server, images, expected
        self.num_answers, self.versions, self.problems = 0, set(), []
        self._ends, self._lock = threading.Event(), threading.Lock()
        ways = [self._over_http, self._over_grpc]
        self._threads = [
            threading.Thread(target=self._run, args=(ways[index % 2], index))
            for index in range(num_clients)
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind, value, traceback):
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def wait_for_answers(self, number):
        """Waits for so many more answers."""
        goal, end = self.num_answers + number, time.monotonic() + HANG_S
        while self.num_answers < goal and not self.problems:
            assert time.monotonic() < end
            time.sleep(0.01)

    def _run(self, way, seed):
        draw = random.Random(seed)
        try:
            way(draw)
        except Exception as error:
            self.problems.append(error)

    def _draw(self, draw):
        size = draw.choice((1, 1, 3, 16))
        start = draw.randrange(len(self.images) - size)
        return slice(start, start + size)

    def _check(self, part, version, scores):
        np.testing.assert_allclose(scores, self.expected[version][part], atol=1e-6)
        with self._lock:
            self.num_answers += 1
            self.versions.add(version)

    def _over_http(self, draw):
        with urllib3.HTTPConnectionPool(self.server.http, retries=False) as pool:
            while not self._ends.is_set():
                part = self._draw(draw)
                images = self.images[part]
                image = {"name": "image", "datatype": "FP32", "shape": images.shape}
                body = orjson.dumps(
                    {"inputs": [image | {"data": images.ravel()}]},
                    option=orjson.OPT_SERIALIZE_NUMPY,
                )
                answer = pool.request("POST", "/v2/models/digits/infer", body=body)
                assert answer.status == 200, answer.data
                content = answer.json()
                (output,) = content["outputs"]
                scores = np.array(output["data"]).reshape(output["shape"])
                self._check(part, content["model_version"], scores)

    def _over_grpc(self, draw):
        with grpc_client.InferenceServerClient(self.server.grpc) as client:
            while not self._ends.is_set():
                part = self._draw(draw)
                image = grpc_client.InferInput("image", self.images[part].shape, "FP32")
                image.set_data_from_numpy(self.images[part])
                answer = client.infer("digits", [image])
                self._check(part, answer.get_response().model_version, answer.as_numpy("scores"))


def state(server):
    with http_client.InferenceServerClient(server.http) as client:
        index = client.get_model_repository_index()
        facts = client.get_model_metadata("digits")
    return {one["version"]: one for one in index}, facts["parameters"]["champion"]


@pytest.fixture
def watched(serve, repository):
    with serve(repository, without_jax=True) as server:
        yield server, repository


def test_publishing_and_promoting_under_load_lose_no_request(
    watched, images, expected, models, publish, promote
):
    server, repository = watched
    with Load(server, images, expected | {"3": expected["1"]}) as load:
        load.wait_for_answers(50)
        assert load.versions == {"1"}
        promote(repository, "digits", 2)
        server.wait_for("version 2 is the champion")
        load.wait_for_answers(50)
        publish(repository, "digits", 3, models[0])
        server.wait_for("version 3 loaded")
        promote(repository, "digits", 3)
        server.wait_for("version 3 is the champion")
        load.wait_for_answers(50)
        shutil.rmtree(repository / "digits" / "1")
        load.wait_for_answers(50)
    assert load.problems == []
    assert load.versions == {"1", "2", "3"}
    end = time.monotonic() + HANG_S
    while "1" in state(server)[0]:
        assert time.monotonic() < end
    assert state(server)[1] == "3"


def test_a_damaged_version_is_named_and_the_others_serve(
    watched, images, expected, models, publish, promote
):
    server, repository = watched
    with Load(server, images, expected | {"4": expected["1"]}) as load:
        publish(repository, "digits", 3, models[0])
        server.wait_for("version 3 loaded")
        folder = publish(repository, "digits", 4, models[0], damage=b"\0")
        server.wait_for("version 4 is not served: .*model.onnx is not what was published")
        promote(repository, "digits", 4)
        server.wait_for("version 1 stays")
        load.wait_for_answers(20)
        entries, champion = state(server)
        assert champion == "1"
        assert [entry["state"] for entry in entries.values()] == ["READY"] * 3 + ["UNAVAILABLE"]
        assert "model.onnx is not what was published" in entries["4"]["reason"]
        (folder / "model.onnx").write_bytes(models[0])
        server.wait_for("version 4 is the champion")
        load.wait_for_answers(20)
    assert load.problems == [] and load.versions == {"1", "4"}


def test_a_version_changed_after_loading_goes_on_as_it_was(watched, images, expected):
    server, repository = watched
    (repository / "digits" / "1" / "model.onnx").write_bytes(b"")
    server.wait_for("version 1 is served as loaded")
    with Load(server, images, expected) as load:
        load.wait_for_answers(10)
    assert load.problems == [] and load.versions == {"1"}
    assert state(server)[0]["1"]["state"] == "READY"
    assert "not what was published" in state(server)[0]["1"]["reason"]


def test_a_repository_out_of_reach_does_not_end_service(watched, images, expected):
    server, repository = watched
    repository.rename(repository.with_name("moved"))
    server.wait_for("serving continues as before")
    with Load(server, images, expected) as load:
        load.wait_for_answers(10)
    assert load.problems == []
    repository.with_name("moved").rename(repository)


def test_a_model_that_is_no_model_is_reported(watched, publish, models, tmp_path):
    server, repository = watched
    publish(repository, "digits", 3, b"not a model")
    server.wait_for("version 3 is not served")
    publish(repository, "other", 1, models[0])
    server.wait_for("other: version 1 loaded")
    with http_client.InferenceServerClient(server.http) as client:
        assert client.is_server_ready()
        assert not client.is_model_ready("other")  # nobody has named its champion
        assert client.is_model_ready("other", "1")
        index = client.get_model_repository_index()
    assert json.dumps(index).count("UNAVAILABLE") == 1


def test_a_server_killed_while_a_version_is_published_leaves_a_repository_that_loads(
    serve, repository, models, publish, promote
):
    draw = random.Random(0)
    for number in (3, 4, 5):
        with serve(repository, without_jax=True) as server:
            publisher = threading.Thread(
                target=lambda number=number: (
                    publish(repository, "digits", number, models[0]),
                    promote(repository, "digits", number),
                )
            )
            publisher.start()
            time.sleep(draw.uniform(0, 1.2))  # the server looks every second
            server.process.kill()
            server.process.wait(HANG_S)
            publisher.join()
    with serve(repository, without_jax=True) as server:
        versions, champion = state(server)
    assert champion == "5"
    assert {version["state"] for version in versions.values()} == {"READY"}
    assert set(versions) >= {"3", "4", "5"}


@pytest.fixture
def small(tmp_path, make_model, publish, promote):
    """What is served of a repository whose model `digits` was made in a moment; and the folder."""
    model = make_model(tmp_path / "model.onnx", (1, 28, 28), 10).read_bytes()
    publish(tmp_path / "repository", "digits", 1, model)
    promote(tmp_path / "repository", "digits", 1)
    served = Models(Repository(tmp_path / "repository"), 1)
    yield served, tmp_path / "repository"
    served.close()


def stale(function, folder):
    """As `function`, but the system has lost sight of what is in `folder`."""

    def call(path, *arguments, **options):
        if folder in (Path(path), *Path(path).parents):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return function(path, *arguments, **options)

    return call


@pytest.mark.parametrize("place, name", [(Path, "iterdir"), (os, "stat")], ids=["list", "look"])
def test_a_model_out_of_reach_for_a_while_answers(small, publish, monkeypatch, place, name):
    served, repository = small
    served.refresh()
    loaded = served.find("digits", None)
    with monkeypatch.context() as patch:
        patch.setattr(place, name, stale(getattr(place, name), repository / "digits"))
        publish(repository, "clothes", 1, b"not a model")
        served.refresh()
        assert served.find("digits", None) == loaded
        assert "digits cannot be read; check its disk" in served.find_model("digits").problem
        assert "clothes" in served.current  # the others are seen meanwhile
    served.refresh()
    assert served.find("digits", None) == loaded
    assert served.find_model("digits").problem == ""
    shutil.rmtree(repository / "digits")
    served.refresh()
    assert set(served.current) == {"clothes"}


def test_a_version_that_could_not_be_loaded_is_tried_again(small, monkeypatch, caplog):
    def fail(*arguments, **options):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    served, _ = small
    caplog.set_level(logging.INFO)
    with monkeypatch.context() as patch:
        patch.setattr(serving, "open_session", fail)
        for seconds in (1e9, 0.0, 0.0):
            patch.setattr(serving, "RETRY_S", seconds)
            served.refresh()
    assert served.index()[0]["state"] == "UNAVAILABLE"
    assert caplog.text.count("Too many open files") == 2  # of the version, and of the champion
    monkeypatch.setattr(serving, "RETRY_S", 1e9)
    served.refresh()
    assert served.index()[0]["state"] == "UNAVAILABLE"  # not at once
    monkeypatch.setattr(serving, "RETRY_S", 0.0)
    served.refresh()
    assert served.find("digits", None)[0] == "1"
    assert "digits: version 1 loaded" in caplog.text
