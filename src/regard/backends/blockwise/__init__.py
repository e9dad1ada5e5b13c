"""Attention block by block: plan, forward, backward, and the autograd function around them."""

from regard.backends.blockwise.function import Blockwise as Blockwise
