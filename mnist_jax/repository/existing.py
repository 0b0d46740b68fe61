"""What can be done to a version that is there: make it the champion, sign it."""

from pathlib import Path

from mnist_jax.errors import UserError
from mnist_jax.repository import layout, sign, store


def promote(repository: Path, name: str, version: str) -> None:
    """Makes a version the champion, whatever the comparison said."""
    _check_place(repository, version)
    with store.lock(repository):
        was = _champion_before(repository, name)
        layout.load_version(repository, name, int(version))
        store.promote(repository, name, int(version))
    print(f"the champion of {name} is version {version}; {was}")


def sign_version(repository: Path, name: str, version: str, key: Path) -> None:
    """Signs a version that is there, whose files are what was published.

    Raises:
        UserError: there is none, a file of it has changed, or the key cannot be used.
    """
    _check_place(repository, version)
    with store.lock(repository):
        layout.load_version(repository, name, int(version))
        sign.sign(repository / name / version, key)
    print(f"signed version {version} of {name} in {repository}")


def _check_place(repository: Path, version: str) -> None:
    if not layout.VERSION_NUMBER.match(version):
        raise UserError(f"version {version!r} is not a number; give one of those in the repository")
    if not repository.is_dir():
        raise UserError(f"{repository} is not a folder; name the repository")


def _champion_before(repository: Path, name: str) -> str:
    if not (repository / name / layout.CHAMPION).exists():
        return "there was none"
    try:
        return f"it was {layout.champion(repository, name)}"
    except UserError:  # which promoting another one puts right
        return "it was damaged"
