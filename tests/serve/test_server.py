"""The server as a process: the same scores every way in, and a clear end to every mistake."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException

from mnist_jax.serve import rest
from mnist_jax.serve.reading import MAX_LARGE
from tests.serve import raw
from tests.waiting import HANG_S

NUM_IMAGES, CHUNK = 1000, 125
INFER = "/v2/models/digits/infer"


def ask(server, path, body=None, headers=(), method=None):
    """Returns the status, the content and the headers of an answer."""
    request = urllib.request.Request(
        f"http://{server.http}{path}", data=body, headers=dict(headers), method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def tensor(**changes):
    """A request for one blank image, changed as the arguments say."""
    image = {"name": "image", "datatype": "FP32", "shape": [1, 1, 28, 28], "data": [0.0] * 784}
    return json.dumps({"inputs": [image | changes]}).encode()


def over_http(server, images, binary):
    with http_client.InferenceServerClient(server.http) as client:
        image = http_client.InferInput("image", list(images.shape), "FP32")
        image.set_data_from_numpy(images, binary_data=binary)
        scores = http_client.InferRequestedOutput("scores", binary_data=binary)
        return client.infer("digits", [image], outputs=[scores]).as_numpy("scores")


def over_http_binary(server, images):
    return over_http(server, images, binary=True)


def over_http_json(server, images):
    return over_http(server, images, binary=False)


def over_grpc(server, images):
    with grpc_client.InferenceServerClient(server.grpc) as client:
        image = grpc_client.InferInput("image", list(images.shape), "FP32")
        image.set_data_from_numpy(images)
        return client.infer("digits", [image]).as_numpy("scores")


def over_curl(server, images):
    done = subprocess.run(
        [
            "curl",
            "-sSf",
            "--data-binary",
            "@-",
            "-H",
            "Content-Type: application/json",
            f"http://{server.http}{INFER}",
        ],
        input=tensor(shape=list(images.shape), data=images.tolist()),
        capture_output=True,
        check=True,
    )
    (output,) = json.loads(done.stdout)["outputs"]
    return np.array(output["data"]).reshape(output["shape"])


@pytest.mark.parametrize("way", [over_http_binary, over_http_json, over_grpc, over_curl])
def test_scores_are_those_of_onnxruntime(server, way, images, expected):
    for start in range(0, NUM_IMAGES, CHUNK):
        part = slice(start, start + CHUNK)
        np.testing.assert_allclose(way(server, images[part]), expected["1"][part], atol=1e-6)


def test_each_version_answers_by_its_number(server, images, expected):
    for number, scores in expected.items():
        body = tensor(data=images[0].tolist(), shape=[1, 1, 28, 28])
        body = body.replace(b'"data": [[[', b'"data": [[[[').replace(b"]]]", b"]]]]")
        status, content, _ = ask(server, f"/v2/models/digits/versions/{number}/infer", body)
        answer = json.loads(content)
        assert (status, answer["model_version"]) == (200, number)
        np.testing.assert_allclose(answer["outputs"][0]["data"], scores[0], atol=1e-6)


def test_the_protocol_s_questions_are_answered_alike_both_ways(server):
    with (
        http_client.InferenceServerClient(server.http) as http,
        grpc_client.InferenceServerClient(server.grpc) as grpc,
    ):
        for client, options in ((http, {}), (grpc, {"as_json": True})):
            assert client.is_server_live() and client.is_server_ready()
            assert client.is_model_ready("digits") and client.is_model_ready("digits", "2")
            facts = client.get_server_metadata(**options)
            assert (facts["name"], "binary_tensor_data" in facts["extensions"]) == (
                "mnist_jax",
                True,
            )
            facts = client.get_model_metadata("digits", **options)
            assert facts["versions"] == ["1", "2"] and facts["platform"] == "onnx_onnxv1"
            (image,), (scores,) = facts["inputs"], facts["outputs"]
            assert (image["name"], image["datatype"]) == ("image", "FP32")
            assert [int(size) for size in image["shape"]] == [-1, 1, 28, 28]
            assert (scores["name"], scores["datatype"]) == ("scores", "FP32")
            assert [int(size) for size in scores["shape"]] == [-1, 10]
            index = client.get_model_repository_index(**options)
            entries = index if isinstance(index, list) else index["models"]
            assert [(one["name"], one["version"], one["state"]) for one in entries] == [
                ("digits", "1", "READY"),
                ("digits", "2", "READY"),
            ]
    parameters = json.loads(ask(server, "/v2/models/digits")[1])["parameters"]
    assert parameters == {
        "labels": list("0123456789"),
        "champion": "1",
        "preparation": "ink",
    }


def test_the_request_s_id_comes_back(server):
    body = json.loads(tensor()) | {"id": "seven"}
    assert json.loads(ask(server, INFER, json.dumps(body).encode())[1])["id"] == "seven"


REFUSED = {
    "rank": (tensor(shape=[1, 28, 28]), r"shape is \[1, 28, 28\]; expected \[n, 1, 28, 28\]"),
    "negative": (tensor(shape=[-1, 1, 28, 28]), r"shape is \[-1"),
    "empty": (tensor(shape=[0, 1, 28, 28], data=[]), r"n from 1 to 128"),
    "too many": (tensor(shape=[129, 1, 28, 28]), r"n from 1 to 128"),
    "huge": (tensor(shape=[10**18, 1, 28, 28]), r"n from 1 to 128"),
    "fraction": (tensor(shape=[1.0, 1, 28, 28]), r"shape is \[1\.0"),
    "datatype": (tensor(datatype="FP64"), r"datatype is 'FP64'; expected FP32"),
    "name": (tensor(name="pixels"), r"input 'pixels' is not known; expected 'image'"),
    "count": (tensor(data=[0.0] * 783), r"783 values; expected 784"),
    "strings": (tensor(data=["0"] * 784), r"something else than numbers"),
    "booleans": (tensor(data=[True] * 784), r"something else than numbers"),
    "nothing": (tensor(data=[None] * 784), r"something else than numbers"),
    "ragged": (tensor(data=[[[[0.0] * 28] * 27 + [[0.0] * 27]]]), r"not nested as the shape"),
    "high": (tensor(data=[255.0] * 784), r"values are from 255 to 255; expected .* 0 to 1"),
    "low": (tensor(data=[-0.5] + [0.0] * 783), r"values are from -0.5 to 0"),
    "overflow": (tensor(data=[1e300] * 784), r"values are from 1e\+300"),
    "NaN": (tensor(data=[float("nan")] * 784), r"not JSON .*without NaN"),
    "two": (json.dumps({"inputs": json.loads(tensor())["inputs"] * 2}).encode(), r"2 tensors"),
    "none": (b'{"inputs": []}', r"0 tensors; expected one"),
    "no object": (b"[1]", r"not a JSON object"),
    "no JSON": (b"\xff\x00", r"not JSON"),
    "deep": (b'{"inputs":' * 2000 + b"1" + b"}" * 2000, r"not JSON"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_tensor_gets_400_and_what_was_expected(server, case):
    body, message = REFUSED[case]
    status, content, headers = ask(server, INFER, body)
    assert (status, headers["content-type"]) == (400, "application/json")
    assert re.search(message, json.loads(content)["error"])


def test_grpc_refuses_in_the_same_words(server):
    with grpc_client.InferenceServerClient(server.grpc) as client:
        for shape, datatype, values in (
            ([1, 1, 28, 27], "FP32", np.zeros((1, 1, 28, 27), np.float32)),
            ([1, 1, 28, 28], "FP32", np.full((1, 1, 28, 28), 2, np.float32)),
            ([1, 1, 28, 28], "FP32", np.full((1, 1, 28, 28), np.nan, np.float32)),
            ([1, 1, 28, 28], "INT32", np.zeros((1, 1, 28, 28), np.int32)),
        ):
            image = grpc_client.InferInput("image", shape, datatype)
            image.set_data_from_numpy(values)
            with pytest.raises(InferenceServerException) as refused:
                client.infer("digits", [image])
            assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
            with http_client.InferenceServerClient(server.http) as other:
                image = http_client.InferInput("image", shape, datatype)
                image.set_data_from_numpy(values)
                with pytest.raises(InferenceServerException) as refused_too:
                    other.infer("digits", [image])
            assert refused_too.value.message() == refused.value.message()
            assert "expected" in refused.value.message()
        for name, version in (("other", ""), ("digits", "3"), ("../digits", ""), ("digits", "01")):
            with pytest.raises(InferenceServerException) as refused:
                client.get_model_metadata(name, version)
            assert refused.value.status() == "StatusCode.NOT_FOUND"


TRICKS = [
    *("..", ".", "...", "%2e%2e", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "digits%2f1", "digits%00"),
    *("..%5c..", "%c0%ae%c0%ae", "digits%0a", "Digits", "x" * 5000, "%ff", "digits "),
]


@pytest.mark.parametrize("name", TRICKS, ids=range(len(TRICKS)))
def test_path_tricks_in_names_get_404(server, name):
    name = name.replace(" ", "%20")
    for path in (f"/v2/models/{name}", f"/v2/models/{name}/ready", f"/{name}", f"/page/{name}"):
        assert ask(server, path)[0] == 404
    assert ask(server, f"/v2/models/{name}/infer", tensor())[0] == 404


@pytest.mark.parametrize(
    "version", ["0", "01", "-1", "3", "9" * 400, "1e0", "%31%2f", "..", "1.0", "%d9%a1", "champion"]
)
def test_tricks_in_versions_get_404(server, version):
    for path in ("", "/ready"):
        assert ask(server, f"/v2/models/digits/versions/{version}{path}")[0] == 404
    assert ask(server, f"/v2/models/digits/versions/{version}/infer", tensor())[0] == 404


def test_what_is_not_there_and_what_is_not_done_are_said_in_json(server):
    for path, method, status in (("/v3", "GET", 404), (INFER, "GET", 405), ("/v2", "PUT", 405)):
        found, content, _ = ask(server, path, method=method)
        assert found == status and json.loads(content)["error"]


def test_a_body_has_a_limit(server):
    status, content, _ = ask(server, INFER, b" " * ((4 << 20) + 1))
    assert status == 413 and "4194304 bytes" in json.loads(content)["error"]
    with pytest.raises(InferenceServerException, match=r"larger than max|exceed"):
        over_grpc(server, np.zeros((2800, 1, 28, 28), np.float32))


def test_a_body_without_a_length_has_a_limit_too(server):
    host, port = server.http.split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(
            f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        chunk = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
        try:
            for _ in range(80):
                connection.sendall(chunk)
        except OSError:
            pass  # cut off, as it should be
        assert b" 413 " in connection.recv(100)


@pytest.mark.parametrize("path", [INFER, "/v2/repository/index"])
def test_large_bodies_are_read_few_at_a_time(server, path):
    def begin(connections):
        connection = connections.enter_context(raw.connect(server))
        connection.sendall(raw.post(path=path, body=b" " * 100_000)[:-1])  # the end never comes
        return connection

    with ExitStack() as connections:
        for _ in range(MAX_LARGE):
            begin(connections)
        assert b" 429 " in begin(connections).recv(100)
        assert ask(server, "/v2/repository/index", b"{}")[0] == 200  # a small one needs no place


def test_a_compressed_body_is_refused(server):
    assert ask(server, INFER, tensor(), {"Content-Encoding": "gzip"})[0] == 415


def test_endless_headers_are_cut_off(server):
    host, port = server.http.split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(b"GET /v2 HTTP/1.1\r\n")
        try:
            for number in range(2000):
                connection.sendall(b"x-%d: " % number + b"y" * 100 + b"\r\n")
        except OSError:
            pass
        assert connection.recv(1000).startswith(b"HTTP/1.1 431 ")


def test_no_answer_lets_anything_from_elsewhere_in(server):
    for path in ("/", "/v2", "/metrics", "/nothing"):
        headers = ask(server, path)[2]
        policy = headers["content-security-policy"]
        assert set(re.findall(r"-src (\S+?);", policy)) == {"'none'", "'self'"}
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_metrics_count_requests_and_invent_no_labels(server):
    def counted():
        text = ask(server, "/metrics")[1].decode()
        found = re.search(r'requests_total{protocol="rest",status="200"} (\S+)', text)
        assert "mallory" not in text
        return float(found[1]), text

    ask(server, INFER, tensor())
    before, text = counted()
    for part in ('version_ready{model="digits",version="2"} 1.0', "batch_images_bucket"):
        assert part in text
    ask(server, INFER, tensor())
    ask(server, "/v2/models/mallory/infer", tensor())
    assert counted()[0] == before + 1


def test_it_listens_on_this_machine_only(server):
    port = int(server.http.split(":")[1])
    with open("/proc/net/tcp") as table:
        listening = [line.split()[1] for line in table if line.split()[3] == "0A"]
    assert f"0100007F:{port:04X}" in listening and f"00000000:{port:04X}" not in listening


def test_a_run_is_served_as_version_1(serve, run, images, expected):
    with serve(run, without_jax=True) as server:
        index = json.loads(ask(server, "/v2/repository/index", b"")[1])
        assert [(one["name"], one["version"]) for one in index] == [("digits_v1", "1")]
        with http_client.InferenceServerClient(server.http) as client:
            image = http_client.InferInput("image", [5, 1, 28, 28], "FP32")
            image.set_data_from_numpy(images[:5])
            scores = client.infer("digits_v1", [image]).as_numpy("scores")
    np.testing.assert_allclose(scores, expected["1"][:5], atol=1e-6)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_under_way_is_answered_before_the_end(serve, repository, number):
    with serve(repository) as server:
        host, port = server.http.split(":")
        body = tensor()
        with socket.create_connection((host, int(port)), 10) as connection:
            head = (
                f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            connection.sendall(head.encode() + body[:100])
            time.sleep(0.3)
            server.process.send_signal(number)
            time.sleep(0.3)
            connection.sendall(body[100:])
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert server.process.wait(10) == 0


def refused(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "mnist_jax.serve", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line]
    assert line.startswith("error: ")
    return line


def test_mistakes_are_one_line_and_status_2(tmp_path, repository, server):
    assert "is not a folder" in refused(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "holds no model" in refused(tmp_path / "empty")
    taken = server.http.split(":")[1]
    assert f"port {taken}" in refused(repository, "--port", taken, "--grpc-port=0")
    taken = server.grpc.split(":")[1]
    assert f"port {taken}" in refused(repository, "--port=0", "--grpc-port", taken)
    assert "0 to 65535" in refused(repository, "--port=65536")
    for number in (1, 2):
        path = repository / "digits" / str(number) / "model.onnx"
        path.write_bytes(path.read_bytes()[:-1])
    assert "model.onnx is not what was published" in refused(repository)


def test_a_run_without_a_model_and_one_changed_since_are_refused(tmp_path, run):
    for name in ("logs/config.json", "logs/release.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((run / name).read_bytes())
    assert "a run without models/mnist_model.onnx" in refused(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mnist_model.onnx").write_bytes(b"other")
    (tmp_path / "logs" / "verification.json").write_bytes(
        (run / "logs" / "verification.json").read_bytes()
    )
    assert "not what was verified" in refused(tmp_path)


def test_the_page_is_served_as_it_lies_there(server):
    page = Path(rest.PAGE)
    assert (page / "index.html").is_file()
    for path in page.iterdir():
        status, content, headers = ask(server, f"/{path.name}")
        assert (status, content) == (200, path.read_bytes())
        kind = {".js": "text/javascript", ".html": "text/html", ".css": "text/css"}
        assert headers["content-type"].startswith(kind.get(path.suffix, ""))
    assert ask(server, "/")[1] == (page / "index.html").read_bytes()
