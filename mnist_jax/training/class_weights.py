"""What an image of each class counts in the loss."""

import numpy as np
from jaxtyping import Float, Integer

from mnist_jax.config import class_weights as given
from mnist_jax.errors import UserError, printable


def of_classes(
    class_weights: str, labels: Integer[np.ndarray, " n"], class_names: tuple[str, ...]
) -> Float[np.ndarray, " classes"] | None:
    """Returns the weight of each class, above 0; None: all count alike.

    Args:
        class_weights: a configuration's: `none`; `balanced`, n / (classes * count), as
            scikit-learn's `compute_class_weight` has it; or a JSON object of weights by class name.
        labels: of the train split alone.
        class_names: in the order of the labels.

    Raises:
        UserError: the object does not name every class or names others, or `balanced` is asked for
            and train lacks a class.
    """
    if class_weights == "none":
        return None
    if class_weights == "balanced":
        counts = np.bincount(labels, minlength=len(class_names))
        for name, count in zip(class_names, counts, strict=True):
            if not count:
                raise UserError(
                    f"class_weights is 'balanced', but train has no picture of class {name!r}; add "
                    "some, or give weights in a file"
                )
        weights = len(labels) / (len(class_names) * counts)
        return weights.astype(np.float32)
    by_name = {printable(name): weight for name, weight in given.parsed(class_weights).items()}
    missing, unknown = set(class_names) - set(by_name), set(by_name) - set(class_names)
    if missing or unknown:
        problem = (
            f"lacks class {min(missing)!r}" if missing else f"names {min(unknown)!r}, not a class"
        )
        raise UserError(
            f"class_weights {problem}; name each of {', '.join(class_names)[:200]} once"
        )
    return np.array([by_name[name] for name in class_names], np.float32)
