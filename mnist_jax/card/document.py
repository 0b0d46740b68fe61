"""The pictures of a verdict, beside its card."""

from pathlib import Path

from mnist_jax.card import capsule_pictures
from mnist_jax.release.prove import Subject
from mnist_jax.release.records import History, Release


def draw(release: Release, history: History | None, subject: Subject, run_dir: Path) -> None:
    """Draws what there is to draw: plots and, of a capsule network with a decoder, drawings.

    Args:
        release: the verdict.
        history: of the training; None where the network was not trained here.
        subject: what was proven.
        run_dir: the run's folder.
    """
    from mnist_jax.card import capsule_plots, plots  # matplotlib takes a second to import

    plots.draw(release, history, run_dir / "model_card" / "plots")
    model, test = subject.trained.model(), subject.test
    if capsule_pictures.can_draw(model, test.images):
        capsule_pictures.record(model, test.images, test.labels, subject.scores, run_dir)
        capsule_plots.draw(run_dir, release["metrics"]["class_names"])
