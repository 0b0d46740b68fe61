"""Layers in the forms that a CPU is fast at, for any network; elsewhere they are JAX's own.

Each computes what the plain layer of `lax` or `nnx` computes, to float32 rounding, with gradients
written by hand where the automatic ones are slow. What they share: images pass in groups whose
intermediate arrays stay in the cache, and a group is cut into one lane a core, whose operations do
not depend on each other, so that XLA runs the lanes side by side. (XLA computes most operations of
such a size on one thread.)
"""
