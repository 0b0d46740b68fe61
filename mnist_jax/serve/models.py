"""The models that answer: loaded, checked, and kept in step with where they come from."""

import json
import logging
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mnist_jax.errors import UserError, first_line
from mnist_jax.export.interface import INK, INPUT_NAME, OUTPUT_NAME
from mnist_jax.export.session import Session, open_session
from mnist_jax.repository.layout import Version
from mnist_jax.serve import metrics
from mnist_jax.serve.batching import Batcher
from mnist_jax.serve.model_file import ModelFile, num_scores, read_model
from mnist_jax.serve.protocol import DATATYPE, RefusedError
from mnist_jax.serve.sources import Listing, Source

PLATFORM = "onnx_onnxv1"  # the Open Inference Protocol's name for ONNX in ONNX Runtime

UNKNOWN = ModelFile(0, 1, INK, ())  # of a file that cannot be loaded

RETRY_S = 30.0  # after which a version that could not be loaded is tried again: disks recover

LOGGER = logging.getLogger("mnist_jax.serve")


@dataclass(frozen=True)
class Loaded:
    """A version that answers, or the reason why it does not."""

    mark: Any  # of its files when they were read
    labels: tuple[str, ...] = ()
    model: ModelFile = UNKNOWN  # what it takes
    batcher: Batcher | None = None
    reason: str = ""  # why it cannot be loaded, or not again
    failed_at: float = 0.0  # monotonic, in s


@dataclass(frozen=True)
class Model:
    """A model's versions by number, and the one that answers where a client names none."""

    versions: Mapping[str, Loaded]
    champion: str | None
    problem: str  # why the champion that was named is not the one that answers


class Models:
    """All that is served. `current` is replaced whole, so a request sees one state of things."""

    def __init__(self, source: Source, max_batch_size: int) -> None:
        self._source, self._max_batch_size = source, max_batch_size
        self._num_threads = os.cpu_count() or 1
        self._executor = ThreadPoolExecutor(self._num_threads, "scores")
        self.current: Mapping[str, Model] = {}
        self.is_stopping = False  # what is asked is answered still, but no more should come

    def find(self, name: str, number: str | None) -> tuple[str, Loaded, Batcher]:
        """Returns a version that answers, with its number; the champion unless one is named.

        Raises:
            RefusedError: there is none; says why.
        """
        model = self.find_model(name)
        if number is None:
            number = model.champion
            if number is None:
                raise RefusedError(404, f"model {name} has no champion to serve: {model.problem}")
        loaded = model.versions.get(number)
        if loaded is None:
            raise RefusedError(
                404, f"no version {number[:20]!r} of {name}; it has {', '.join(model.versions)}"
            )
        if loaded.batcher is None:
            raise RefusedError(404, f"version {number} of {name} is not served: {loaded.reason}")
        return number, loaded, loaded.batcher

    def find_model(self, name: str) -> Model:
        """Returns a model.

        Raises:
            RefusedError: there is none of that name.
        """
        if name not in self.current:
            raise RefusedError(404, f"no model {name[:100]!r}; there are {', '.join(self.current)}")
        return self.current[name]

    def describe(self, name: str, number: str | None) -> dict[str, Any]:
        """Returns what the protocol calls a model's metadata."""
        model = self.find_model(name)
        _, loaded, _ = self.find(name, number)
        labels = list(loaded.labels)
        facts = {"champion": model.champion, "preparation": loaded.model.rule}
        return {
            "name": name,
            "versions": [number for number, one in model.versions.items() if one.batcher],
            "platform": PLATFORM,
            "inputs": [
                {
                    "name": INPUT_NAME,
                    "datatype": DATATYPE,
                    "shape": [-1, *loaded.model.image_shape],
                }
            ],
            "outputs": [{"name": OUTPUT_NAME, "datatype": DATATYPE, "shape": [-1, len(labels)]}],
            "parameters": {"labels": labels, **facts},
            # The same in strings, as the protocol has it, so that it can go over gRPC.
            "properties": {
                "labels": json.dumps(labels),
                **{key: value or "" for key, value in facts.items()},
            },
        }

    def statistics(self, name: str | None, number: str | None) -> list[dict[str, Any]]:
        """Returns what each version has done, as Triton's statistics extension has it.

        Args:
            name: one model; all unless given.
            number: one of its versions; all unless given.

        Raises:
            RefusedError: there is none.
        """
        if name is not None and number is not None:
            self.find(name, number)
        names = self.current if name is None else [name]
        return [
            {"name": name, "version": version, **loaded.batcher.statistics.describe()}
            for name in names
            for version, loaded in self.find_model(name).versions.items()
            if loaded.batcher is not None and number in (None, version)
        ]

    def index(self) -> list[dict[str, str]]:
        """Returns every version there is, whether it answers, and what is wrong with it."""
        return [
            {
                "name": name,
                "version": number,
                "state": "READY" if loaded.batcher else "UNAVAILABLE",
                "reason": loaded.reason,
            }
            for name, model in self.current.items()
            for number, loaded in model.versions.items()
        ]

    def is_ready(self) -> bool:
        """Tells whether any model answers: one that is damaged does not take the others down."""
        return not self.is_stopping and any(model.champion for model in self.current.values())

    def refresh(self) -> None:
        """Brings `current` in step with the source; may run in another thread than the requests.

        What is new is loaded beside what answers. Requests that have begun keep the version they
        began with, which goes when its last answer is out.

        Raises:
            UserError: the source cannot be read; all stays as it is.
        """
        before, index = self.current, self.index()
        self.current = {
            name: self._refresh_model(name, listing, before.get(name))
            for name, listing in self._source.listings().items()
        }
        if self.index() != index:
            metrics.set_ready(self.index())
        _log_changes(before, self.current)  # when it is true: requests see it already

    def close(self) -> None:
        """Ends the threads; what nobody waits for any more is not computed."""
        self._executor.shutdown(cancel_futures=True)

    def _refresh_model(self, name: str, listing: Listing, before: Model | None) -> Model:
        versions = {
            str(number): self._refresh_version(
                name, number, mark, before.versions.get(str(number)) if before else None
            )
            for number, mark in listing.marks.items()
        }
        wanted, problem = str(listing.champion or ""), listing.problem
        if wanted and versions[wanted].batcher is None:
            problem = versions[wanted].reason
        if not problem:
            champion = wanted
        else:  # the last one that answered stays: a mistake in publishing must not stop service
            champion = before.champion if before else None
            if champion is not None and not (
                champion in versions and versions[champion].batcher is not None
            ):
                champion = None
        return Model(versions, champion, problem)

    def _refresh_version(self, name: str, number: int, mark: Any, before: Loaded | None) -> Loaded:
        if before is not None and before.mark == mark:
            is_due = before.reason and time.monotonic() >= before.failed_at + RETRY_S
            if not is_due:
                return before
        try:
            return self._load(name, number, mark)
        except Exception as error:  # whatever is wrong with one file, the others are served
            reason = str(error) if isinstance(error, UserError) else first_line(error)
            failed = before if before is not None and before.batcher is not None else Loaded(mark)
            return replace(failed, mark=mark, reason=reason, failed_at=time.monotonic())

    def _load(self, name: str, number: int, mark: Any) -> Loaded:
        """Loads a version, and has it score a blank image, which makes the first request quick."""
        version = self._source.load(name, number)
        session = open_session(version.model, "all", num_threads=1)
        model = _check(session, version)
        batcher = Batcher(
            lambda images: np.asarray(session.run([OUTPUT_NAME], {INPUT_NAME: images})[0]),
            self._executor,
            self._num_threads,
            self._max_batch_size,
            metrics.make_batch_report(name, str(number)),
        )
        return Loaded(mark, version.labels, model, batcher)


def _check(session: Session, version: Version) -> ModelFile:
    """Checks a model's interface and labels, and returns what it takes.

    Raises:
        UserError: it is not a model of images, or has another number of labels.
    """
    model = read_model(session, version.model_path)
    count = num_scores(session, model)
    if count != len(version.labels):
        raise UserError(
            f"{version.model_path} gives {count} scores for {len(version.labels)} labels; "
            "publish the run again"
        )
    return model


def _log_changes(before: Mapping[str, Model], after: Mapping[str, Model]) -> None:
    for name, model in after.items():
        was = before.get(name)
        for number, loaded in model.versions.items():
            one = was.versions.get(number) if was is not None else None
            if one and (one.batcher, one.reason) == (loaded.batcher, loaded.reason):
                continue
            if not loaded.reason:
                LOGGER.info("%s: version %s loaded", name, number)
            else:
                outcome = "served as loaded" if loaded.batcher else "not served"
                LOGGER.warning("%s: version %s is %s: %s", name, number, outcome, loaded.reason)
        if was is None or (was.champion, was.problem) != (model.champion, model.problem):
            _log_champion(name, model)
    for name in before.keys() - after.keys():
        LOGGER.info("%s is gone", name)


def _log_champion(name: str, model: Model) -> None:
    if model.problem:
        answers = f"version {model.champion} stays" if model.champion else "none answers"
        LOGGER.warning("%s: %s; %s", name, model.problem, answers)
    else:
        LOGGER.info("%s: version %s is the champion", name, model.champion)
