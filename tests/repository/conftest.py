import hashlib
import json

import pytest


def write_version(folder, name, number, files):
    """Writes a version by hand, knowing nothing of the code that publishes."""
    folder.mkdir(parents=True)
    for path, content in files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(content)
    sums = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    manifest = {
        "name": name,
        "version": number,
        "verdict": "released",
        "files": {path: {"sha256": digest} for path, digest in sums.items()},
    }
    content = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(content)
    sums["manifest.json"] = hashlib.sha256(content).hexdigest()
    lines = [f"{digest}  {path}\n" for path, digest in sorted(sums.items())]
    (folder / "SHA256SUMS").write_text("".join(lines))


@pytest.fixture
def repository(tmp_path):
    """Two models: `digits` with versions 1, 2, 10, of which 2 is the champion, and `clothes`."""
    for name, numbers, champion in (("digits", (1, 2, 10), 2), ("clothes", (1,), 1)):
        for number in numbers:
            files = {
                "model.onnx": b"model %d" % number,
                "labels.txt": "zero\nöne\n".encode(),
                "version": b"%d\n" % number,
                "card/plots.png": b"",
            }
            write_version(tmp_path / name / str(number), name, number, files)
        (tmp_path / name / "serving").symlink_to(str(champion))
        (tmp_path / name / "champion").symlink_to("serving/version")
    return tmp_path
