"""From a measured network to its verdict, its pictures and its card."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mnist_jax.card import capsule_pictures, mistakes, model_card
from mnist_jax.release import prove
from mnist_jax.release.prove import Subject
from mnist_jax.release.records import Criteria, History, Release
from mnist_jax.run import paths
from mnist_jax.run.stopwatch import Phases


def draw(release: Release, history: History | None, subject: Subject, run_dir: Path) -> None:
    """Draws what there is to draw: plots and, of a capsule network with a decoder, drawings.

    Args:
        release: the verdict.
        history: of the training; None where the network was not trained here.
        subject: what was proven.
        run_dir: the run's folder.
    """
    from mnist_jax.card import capsule_plots, mistake_plot, plots  # matplotlib takes a second

    folder = run_dir / "model_card" / "plots"
    for name in model_card.PLOTS:  # of an earlier proof in this folder, of another network perhaps
        path = folder / f"{name}.png"
        if path != run_dir / paths.ROBUSTNESS_PLOT:
            path.unlink(missing_ok=True)
    plots.draw(release, history, folder)
    class_names = release["metrics"]["class_names"]
    mistake_plot.draw(subject.scores, subject.test, class_names, folder)
    model, test = subject.trained.model(), subject.test
    imported = release["run"].get("imported")
    has_decoder = imported is None or imported["has_decoder"]
    if has_decoder and capsule_pictures.can_draw(model):
        capsule_pictures.record(model, test.images, test.labels, subject.scores, run_dir)
        capsule_plots.draw(run_dir, class_names)


def conclude(
    subject: Subject,
    run_dir: Path,
    *,
    formats: Sequence[str],
    criteria: Criteria,
    phases: Phases,
    history: History | None = None,
    seeds: Any = None,
    has_pictures: bool = True,
) -> Release:
    """Takes a measured network to its verdict, its pictures and its card.

    Where all three are there, the run is finished.
    """
    release = prove.prove(
        subject, run_dir, formats=formats, criteria=criteria, phases=phases, seeds=seeds
    )
    class_names = release["metrics"]["class_names"]
    mistakes.write(subject.scores, subject.test.labels, class_names, subject.names, run_dir)
    if has_pictures:
        draw(release, history, subject, run_dir)
    model_card.write(run_dir)
    phases.end("card")
    return release
