"""The folder of a run: paths, lock, log, stopwatch, environment."""
