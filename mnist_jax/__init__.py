"""A training-to-release pipeline for small image classifiers in JAX."""
