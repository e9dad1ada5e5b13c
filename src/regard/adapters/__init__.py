"""Attention as other projects write it, computed by regard: each adapter converts one convention, and says how.

* `regard.adapters.book`: checkpoints of the modules that `regard.nn` is named after.
* `regard.adapters.flex`: the functions and block masks of FlexAttention, and back.
* `regard.adapters.gpt2`: checkpoints and modules with GPT-2's fused ``c_attn``, and back.
* `regard.adapters.huggingface`: attention and masks of Hugging Face transformers.
* `regard.adapters.llama`: those with ``q_proj``, ``k_proj``, ``v_proj`` and ``o_proj``, and back.
* `regard.adapters.onnx`: the ``Attention`` and ``RotaryEmbedding`` operators of ONNX.
* `regard.adapters.sdpa`: ``torch.nn.functional.scaled_dot_product_attention``.
* `regard.adapters.torch_mha`: ``torch.nn.MultiheadAttention``, and back.

An adapter that cannot honour an argument raises; none drops one in silence. None needs the other project installed.
"""

from regard.adapters import book as book
from regard.adapters import flex as flex
from regard.adapters import gpt2 as gpt2
from regard.adapters import huggingface as huggingface
from regard.adapters import llama as llama
from regard.adapters import onnx as onnx
from regard.adapters import sdpa as sdpa
from regard.adapters import torch_mha as torch_mha
