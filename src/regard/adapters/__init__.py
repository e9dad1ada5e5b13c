"""Attention as other projects write it, computed by regard: each adapter converts one convention, and says how.

* `regard.adapters.onnx`: the ``Attention`` and ``RotaryEmbedding`` operators of ONNX.

An adapter that cannot honour an argument raises; none drops one in silence. None needs the other project installed.
"""

from regard.adapters import onnx as onnx
