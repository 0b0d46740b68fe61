"""Released models on disk, as Triton lays them out; nothing here needs JAX to be read."""
