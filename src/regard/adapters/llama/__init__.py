"""Llama-style attention: ``q_proj``, ``k_proj``, ``v_proj``, ``o_proj``, as checkpoints and as transformers' modules.

So are the layers of Llama, Mistral, Qwen2, Qwen3 (with ``q_norm`` and ``k_norm``), SmolLM, gpt-oss (with ``sinks``) and
many more.

What is converted: the names; and, where the checkpoint's rotary layout is not that of the module's ``rope``, the order
of the features that are turned, in the weights and biases of queries and keys and in their norms. transformers'
checkpoints are ``"half-split"`` (features ``j`` and ``j + D/2`` form a pair), Meta's own are ``"interleaved"`` (``2j``
and ``2j + 1``). Old checkpoints also save ``rotary_emb.inv_freq``, which is left out where it holds the frequencies of
``rope``.
"""

from regard.adapters.llama._module import from_transformers as from_transformers
from regard.adapters.llama._module import to_transformers as to_transformers
from regard.adapters.llama._rope import rotary_embedding as rotary_embedding
from regard.adapters.llama._weights import load_state_dict as load_state_dict
from regard.adapters.llama._weights import state_dict as state_dict
