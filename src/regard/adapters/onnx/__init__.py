"""ONNX's ``Attention`` (opset 23 to 25) and ``RotaryEmbedding`` operators as functions on torch tensors.

What is converted:

* Three-dimensional operands ``(B, L, heads * D)`` are split into heads, and ``Y`` is packed again.
* Causal masks and windows count from a query's position, and the first query stands behind the keys that precede this
  block: behind ``past_key``; with ``nonpad_kv_seqlen`` so that the last query is at each entry's last real key;
  otherwise at key 0, so that without a cache ``is_causal`` is aligned at the *top left* even when L differs from S. A
  bool ``attn_mask`` says True = may attend, as regard does; any other is added to the scores.
* A mask narrower than the keys hides the rest. A mask of three dims is ``(heads, L, S)``.

Low precision is accumulated in float32 and rounded once, in ``Y``; the operator's reference rounds in between.
"""

from regard.adapters.onnx._attention import OUTPUTS as OUTPUTS
from regard.adapters.onnx._attention import attention as attention
from regard.adapters.onnx._export import export as export
from regard.adapters.onnx._rotary import rotary_embedding as rotary_embedding
