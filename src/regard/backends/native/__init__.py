"""Attention on the CPU by compiled kernels, forward and backward."""

from regard.backends.native.backend import Native as Native
