"""The ladder: attention as modules, from three lines without weights to heads in parallel, each rung equal to the next.

`SimpleSelfAttention` → `SelfAttentionV1` → `SelfAttentionV2` → `CausalAttention` → `MultiHeadAttentionWrapper` →
`MultiHeadAttention`. Names and argument order are those of chapter 3 of S. Raschka, *Build a Large Language Model (From
Scratch)* (2024); every rung computes through `regard.attention`, and every rung's ``steps(x)`` shows what happened.

Beside it: `RotaryEmbedding` with its scalings, for `MultiHeadAttention`.
"""

from regard.nn.causal import CausalAttention as CausalAttention
from regard.nn.multi_head import MultiHeadAttention as MultiHeadAttention
from regard.nn.rotary import RotaryEmbedding as RotaryEmbedding
from regard.nn.rotary import half_split_to_interleaved as half_split_to_interleaved
from regard.nn.rotary import interleaved_to_half_split as interleaved_to_half_split
from regard.nn.rotary_scaling import DynamicNTK as DynamicNTK
from regard.nn.rotary_scaling import LinearScaling as LinearScaling
from regard.nn.rotary_scaling import Llama3Scaling as Llama3Scaling
from regard.nn.rotary_scaling import RotaryScaling as RotaryScaling
from regard.nn.rotary_scaling import YaRN as YaRN
from regard.nn.self_attention import SelfAttentionV1 as SelfAttentionV1
from regard.nn.self_attention import SelfAttentionV2 as SelfAttentionV2
from regard.nn.simple import SimpleSelfAttention as SimpleSelfAttention
from regard.nn.steps import Steps as Steps
from regard.nn.wrapper import MultiHeadAttentionWrapper as MultiHeadAttentionWrapper
