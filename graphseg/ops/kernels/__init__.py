"""Numba kernels for CPU, imported when first used. Each has a tensor form in `graphseg.ops` that tests hold equal.

Kernels are compiled with `nogil` and run over images in Python threads made for one call: numba's own thread pool
(`parallel=True`) does not survive the fork of a DataLoader worker.

A file holds all that its kernels call: what numba keeps on disk is renewed when the file changes, and does not know of
others.
"""
