import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from mnist_jax.run import compilation_cache, environment

KEYS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture
def use(monkeypatch):
    """Calls `use` and returns the folder and the warnings; JAX is left as it was."""
    warnings = []
    monkeypatch.setattr(
        compilation_cache.LOGGER, "warning", lambda text, *args: warnings.append(text % args)
    )
    before = {key: getattr(jax.config, key) for key in KEYS}
    jax.config.update("jax_compilation_cache_dir", None)  # the tests share one

    def use(**variables):
        compilation_cache.use(variables)
        return jax.config.jax_compilation_cache_dir, warnings

    yield use
    for key, value in before.items():
        jax.config.update(key, value)


def mode(path):
    return Path(path).stat().st_mode & 0o777


@pytest.fixture
def base(tmp_path):
    (tmp_path / "base").mkdir(mode=0o755)
    return tmp_path / "base"


def test_the_folder_is_the_users_alone(use, base):
    old = os.umask(0o002)
    try:
        folder, warnings = use(XDG_CACHE_HOME=str(base / "new"), HOME="/nowhere")
    finally:
        os.umask(old)
    assert not warnings
    assert Path(folder).parent == base / "new" / "mnist_jax"
    assert [mode(path) for path in (folder, Path(folder).parent, base / "new")] == [0o700] * 3
    assert use(XDG_CACHE_HOME=str(base / "new")) == (folder, [])  # and may be there already


def test_without_another_wish_it_is_in_the_home_folder(use, base):
    folder, _ = use(HOME=str(base))
    assert Path(folder).parent == base / ".cache" / "mnist_jax"


@pytest.mark.parametrize("variable", ["JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"])
def test_what_the_user_tells_jax_holds(use, base, variable):
    assert use(HOME=str(base), **{variable: "false"}) == (None, [])
    assert not list(base.iterdir())


@pytest.mark.parametrize("bits", [0o770, 0o707])
@pytest.mark.parametrize("place", ["the folder", "above it"])
def test_a_folder_that_others_can_write_is_refused(use, base, bits, place):
    folder = base / "mnist_jax" / f"xla_{compilation_cache.machine()}"
    folder.mkdir(parents=True, mode=0o700)
    at_fault = folder if place == "the folder" else base
    at_fault.chmod(bits)
    used, (warning,) = use(XDG_CACHE_HOME=str(base))
    assert used is None
    assert f"other users can write to {at_fault}" in warning
    assert "XDG_CACHE_HOME" in warning


def test_a_folder_below_one_like_tmp_is_safe(use, base):
    base.chmod(0o1777)  # others can write there, and cannot touch what is ours
    assert use(XDG_CACHE_HOME=str(base))[0] is not None


def test_another_users_folder_is_refused(use, base, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    used, (warning,) = use(XDG_CACHE_HOME=str(base))
    assert used is None
    assert "belongs to another user" in warning


def test_where_no_folder_can_be_made_training_goes_on_without(use, base):
    (base / "file").write_text("")
    used, (warning,) = use(XDG_CACHE_HOME=str(base / "file"))
    assert used is None
    assert "cannot be made" in warning


@pytest.mark.parametrize("fact", ["cpu_name", "cpu_features", "num_cpus"])
def test_another_processor_has_another_folder(monkeypatch, fact):
    before = compilation_cache.machine()
    monkeypatch.setattr(environment, fact, lambda: "something else")
    assert compilation_cache.machine() != before


def test_a_program_from_the_cache_computes_the_same_bits(base):
    code = """
import os, jax, jax.numpy as jnp
from mnist_jax.run import compilation_cache
compilation_cache.use(os.environ)
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
x = jax.random.normal(jax.random.key(0), (64, 65))
y = jax.jit(lambda x: jax.nn.softmax(jnp.tanh(x @ x.T) * 3).sum(axis=0))(x)
print(y.tobytes().hex() if hasattr(y, "tobytes") else bytes(y).hex())
print(sum("/cache_hits" in hit for hit in hits), sum("/cache_misses" in hit for hit in hits))
"""
    variables = {**os.environ, "XDG_CACHE_HOME": str(base), "JAX_PLATFORMS": "cpu"}
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"):
        variables.pop(name, None)
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    (bits, hits, misses), (bits_again, hits_again, misses_again) = outputs
    assert bits == bits_again
    assert (int(hits), int(misses_again)) == (0, 0)
    assert int(misses) == int(hits_again) > 0
