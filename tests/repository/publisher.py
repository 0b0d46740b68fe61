"""Publishing small files, as processes of their own do it; imports little, to start quickly."""

from mnist_jax.repository import layout, store


def files(number):
    return {
        "model.onnx": b"model %d" % number * 1000,
        "version": b"%d\n" % number,
        "labels.txt": b"zero\none\n",
        "config.pbtxt": b"champion %d" % number,
        "warmup/image": b"pixels",
        "card/plots/a.png": b"%d" % number,
    }


def publish(repository, name="digits", is_better=True, sign=None):
    """What scripts/publish does with the disk; returns the new version's number."""
    with store.lock(repository):
        is_first = not layout.list_versions(repository, name)
        number = store.next_number(repository, name)
        store.add_version(repository, name, number, files(number), {"verdict": "released"}, sign)
        if is_better and not is_first:
            store.promote(repository, name, number)
    return number


def check(repository):
    """Reads everything there is; Triton's configuration must be the champion's."""
    found = {}
    for name in layout.list_models(repository):
        champion = layout.champion(repository, name)
        for number in layout.list_versions(repository, name):
            version = layout.load_version(repository, name, number)
            assert version.model_path.read_bytes() == files(number)["model.onnx"]
        assert (repository / name / "config.pbtxt").read_bytes() == b"champion %d" % champion
        assert (repository / name / "labels.txt").read_bytes() == b"zero\none\n"
        for entry in (repository / name).iterdir():
            assert entry.exists(), f"{entry} leads nowhere, which Triton takes for a broken model"
        found[name] = champion
    return found
