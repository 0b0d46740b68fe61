"""Clients and proxies that others wrote."""

import asyncio
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http.aio as http_aio
from tritonclient.grpc import InferInput as GrpcInput
from tritonclient.http import InferInput as HttpInput

from tests.serve.raw import BODY, INFER
from tests.waiting import HANG_S

JAVA = """
import java.net.URI; import java.net.http.*; import java.nio.file.*;
public class Ask {
  public static void main(String[] a) throws Exception {
    var request = HttpRequest.newBuilder(URI.create(a[0]))
        .POST(HttpRequest.BodyPublishers.ofFile(Path.of(a[1]))).build();
    var client = HttpClient.newHttpClient();  // which offers h2c on every first request
    for (int i = 0; i < 3; i++) {
      var answer = client.send(request, HttpResponse.BodyHandlers.ofString());
      System.out.println(answer.statusCode() + " " + answer.version() + " " + answer.body());
    }
  }
}
"""

NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port} ssl http2;
    ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
    client_max_body_size 4m;
    location /digits/ {{
      proxy_pass http://{http}/;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }}
    location /inference.GRPCInferenceService/ {{ grpc_pass grpc://{grpc}; }}
  }}
}}
"""


@pytest.mark.parametrize("way", ["http", "grpc"])
def test_tritonclient_s_asynchronous_clients(server, images, expected, way):
    module, kind = (http_aio, HttpInput) if way == "http" else (grpc_aio, GrpcInput)

    async def ask():
        async with module.InferenceServerClient(getattr(server, way)) as client:
            assert await client.is_server_ready() and await client.is_model_ready("digits")
            assert await client.get_inference_statistics("digits")
            image = kind("image", [4, 1, 28, 28], "FP32")
            image.set_data_from_numpy(images[:4])
            answers = [client.infer("digits", [image]) for _ in range(8)]
            return [answer.as_numpy("scores") for answer in await asyncio.gather(*answers)]

    for scores in asyncio.run(ask()):
        np.testing.assert_allclose(scores, expected["1"][:4], atol=1e-6)


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("package", ["kserve==0.21.0", "mlserver==1.7.1"])
def test_sdks_that_need_other_versions_than_are_pinned_here(
    server, images, expected, tmp_path, package
):
    """In environments of their own: one caps python-dateutil, one importlib-resources."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    pip = [sys.base_prefix + "/bin/python3", "-m", "pip", "--python", python, "install", "-q"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run([*pip, package], check=True, env=environment)
    np.save(tmp_path / "images.npy", images[:5])
    script = Path(__file__).with_name(f"{package.partition('=')[0]}_client.py")
    places = [tmp_path / "images.npy", tmp_path / "scores.npy"]
    command = [python, script, server.http, server.grpc, "digits", *places]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stderr
    answers = np.load(tmp_path / "scores.npy")
    assert len(answers) >= 3
    for scores in answers:
        np.testing.assert_allclose(scores, expected["1"][:5], atol=1e-6)


@pytest.mark.skipif(shutil.which("java") is None, reason="no java, which is not required")
def test_java_s_client_which_offers_http_2(server, tmp_path):
    """The same bytes are sent by `test_connections.py` where there is no Java."""
    (tmp_path / "Ask.java").write_text(JAVA)
    (tmp_path / "body.json").write_bytes(BODY)
    done = subprocess.run(
        ["java", "Ask.java", f"http://{server.http}{INFER}", "body.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    answers = done.stdout.splitlines()
    assert len(answers) == 3, done.stderr
    assert all(answer.startswith("200 HTTP_1_1 ") and "scores" in answer for answer in answers)


@pytest.mark.slow
def test_nginx_in_front_under_a_sub_path_with_tls(server, tmp_path, free_port):
    """Needs nginx and openssl, as `apt-get install nginx openssl` gives them."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"),
        ],
        check=True,
        capture_output=True,
    )
    config = NGINX.format(folder=tmp_path, port=free_port, http=server.http, grpc=server.grpc)
    (tmp_path / "nginx.conf").write_text(config)
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    assert program is not None, "nginx is not installed: apt-get install nginx"
    context = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    base = f"https://localhost:{free_port}/digits"

    def ask(path, body=None):
        with urllib.request.urlopen(base + path, body, timeout=20, context=context) as answer:
            return answer.read()

    with subprocess.Popen([program, "-c", tmp_path / "nginx.conf", "-e", "stderr"]) as proxy:
        try:
            for _ in range(100):
                try:
                    ask("/v2/health/ready")
                    break
                except OSError:
                    time.sleep(0.1)
            assert json.loads(ask("/v2"))["name"] == "mnist_jax"
            assert b"<canvas" in ask("/")
            assert len(json.loads(ask(INFER, BODY))["outputs"][0]["data"]) == 10
            root = (tmp_path / "cert.pem").read_bytes()
            credentials = grpc_aio.grpc.ssl_channel_credentials(root)

            async def over_grpc():
                async with grpc_aio.grpc.aio.secure_channel(
                    f"localhost:{free_port}", credentials
                ) as channel:
                    live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
                    return await live(b"", timeout=20)

            assert asyncio.run(over_grpc()) == b"\x08\x01"
        finally:
            proxy.terminate()


@pytest.fixture
def free_port():
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
