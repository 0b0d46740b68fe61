"""Where the models to serve come from: a model repository, or one run."""

import os.path
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnist_jax.errors import UserError
from mnist_jax.files import read_json, sha256
from mnist_jax.repository import layout

# In a run's folder, as mnist_jax.run.folder and mnist_jax.export have them.
CONFIG, VERIFICATION, RELEASE = "logs/config.json", "logs/verification.json", "logs/release.json"
MODEL = "models/mnist_model.onnx"


@dataclass(frozen=True)
class Listing:
    """What there is of one model."""

    marks: Mapping[int, Any]  # by version: something that changes when its files do
    champion: int | None
    problem: str  # with the champion; empty where there is none


class Repository:
    """A folder that `scripts/publish` has filled."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Listing] = {}

    def listings(self) -> dict[str, Listing]:
        """Returns the models there now, by name; what cannot be read for a while is as it was."""
        names = {*layout.list_models(self._path), *self._known}
        listings = {name: self._list(name) for name in sorted(names)}
        self._known = {name: listing for name, listing in listings.items() if listing.marks}
        return self._known

    def _list(self, name: str) -> Listing:
        champion, problem, folder = None, "", self._path / name
        try:
            champion = layout.champion(self._path, name)
        except UserError as error:
            problem = str(error)
        # Listed last: a new champion's folder is there before it is the champion.
        numbers = layout.list_versions(self._path, name)
        known = self._known[name].marks if name in self._known else {}
        kept = {
            number: mark
            for number, mark in known.items()
            if number not in numbers and not _is_gone(folder / str(number) / layout.SUMS)
        }
        if kept and not numbers and champion is None:
            problem = f"{folder} cannot be read; check its disk, and who may read it"
        marks = {number: _mark(folder / str(number)) for number in numbers}
        return Listing(dict(sorted((kept | marks).items())), champion, problem)

    def load(self, name: str, number: int) -> layout.Version:
        """Returns a version, every file of which is what was published.

        Raises:
            UserError: one is not, or there is no such version.
        """
        return layout.load_version(self._path, name, number)


class Run:
    """The folder of one finished run, served as version 1 of a model named as its data set."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Part of a path in the site of scripts/build_demo, and a stranger's run may say anything.
        self.name = layout.default_name(str(read_json(path / CONFIG)["dataset"]["dataset_id"]))

    def listings(self) -> dict[str, Listing]:
        """Returns the one model; scripts/export writes its file first, and last what it is."""
        places = ("models", CONFIG, VERIFICATION, RELEASE)
        mark = tuple(_mark(self._path / place) for place in places)
        return {self.name: Listing({1: mark}, 1, "")}

    def load(self, name: str, number: int) -> layout.Version:
        """Returns the exported model, which is the file that was verified.

        Raises:
            UserError: it is not.
        """
        path = self._path / MODEL
        verified = read_json(self._path / VERIFICATION)["files"]["onnx"]["sha256"]
        try:
            model = layout.read_file(path)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; scripts/export writes it again") from error
        if sha256(model) != verified:
            raise UserError(f"{path} is not what was verified; scripts/export writes it again")
        labels = read_json(self._path / CONFIG)["dataset"]["class_names"]
        release = read_json(self._path / RELEASE)
        return layout.Version(name, number, path, model, tuple(labels), release)

    @property
    def is_released(self) -> bool:
        """Tells whether the criteria let the run pass."""
        return read_json(self._path / RELEASE)["verdict"] == "released"


Source = Repository | Run


def find_source(path: Path) -> Source:
    """Returns what `path` is.

    Raises:
        UserError: it is neither a model repository nor a finished run.
    """
    if not os.path.isdir(path):
        raise UserError(f"{path} is not a folder; name a model repository, or the folder of a run")
    if os.path.isfile(path / CONFIG):
        if not (os.path.isfile(path / MODEL) and os.path.isfile(path / VERIFICATION)):
            raise UserError(f"{path} is a run without {MODEL}; finish it, or use scripts/export")
        return Run(path)
    if not layout.list_models(path):
        raise UserError(f"{path} holds no model; scripts/publish puts one there, or name a run")
    return Repository(path)


def find_model(path: Path) -> layout.Version:
    """Returns the one model that `path` means: of a run, a version or a file.

    Args:
        path: a run; a version's folder; a model in a repository, or a repository of one model, of
            which the champion is taken; or an ONNX file, of which no labels are known here.

    Raises:
        UserError: it is none of these, or what is there is not what was verified or published.
    """
    place = path.resolve()  # `serving` is a link to a version
    if not os.path.isdir(place):
        try:
            return layout.Version(path.stem, 0, path, layout.read_file(place), (), {})
        except OSError as error:
            raise UserError(
                f"{path}: {error.strerror}; name a run, a model of a repository or an .onnx file"
            ) from error
    if os.path.isfile(place / layout.SUMS):
        manifest, contents = layout.check_files(place)
        labels = tuple(contents[layout.LABELS].decode().splitlines())
        model = contents[layout.MODEL]
        return layout.Version(place.name, 0, place / layout.MODEL, model, labels, manifest)
    if os.path.isfile(place / CONFIG):
        source = find_source(path)
        return source.load(next(iter(source.listings())), 1)
    if layout.list_versions(place.parent, place.name):
        number = layout.champion(place.parent, place.name)
        return layout.load_version(place.parent, place.name, number)
    names = layout.list_models(place)
    if len(names) != 1:
        choice = (
            f"name one of them, as {path / names[0]}" if names else "name a run or a repository"
        )
        raise UserError(f"{path} holds {len(names)} models, {', '.join(names) or 'none'}; {choice}")
    return layout.load_version(place, names[0], layout.champion(place, names[0]))


def _is_gone(path: Path) -> bool:
    """Tells a file that is not there from one that cannot be looked at now."""
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, FileNotFoundError | NotADirectoryError)
    return False


def _mark(place: Path) -> tuple[tuple[str, int, int], ...]:
    """Returns name, size and time of a file, or of all below a folder: they change when it does."""
    marks = []
    for path in sorted(place.rglob("*")) or [place]:
        try:
            facts = path.lstat()
        except OSError:  # gone meanwhile: the next look finds a change
            continue
        marks.append((str(path), facts.st_size, facts.st_mtime_ns))
    return tuple(marks)
