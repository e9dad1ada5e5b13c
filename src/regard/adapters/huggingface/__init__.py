"""Attention of Hugging Face transformers, computed by regard.

`register` once; then ``model.set_attn_implementation("regard")`` gives eager attention's numbers, on every architecture
that asks transformers for its attention (`regard.adapters.huggingface.survey` says which). `use` does both and raises
where a part of the model cannot be switched; `using` switches back.

What a call of attention may be given, and what becomes of it:

* the masks that transformers makes (causal, padded on any side, packed, windows, chunks, blocks) stay intervals of keys
  that the kernels skip; a mask of anyone's own is evaluated;
* softcap, sinks, position biases and float masks are score changes; dropout is regard's;
* with ``output_attentions=True`` the weights come back lazy (`Attentions`), and those of a decoding step as a tensor;
* `cache` makes a cache that does not copy itself at every step;
* an argument that regard does not know raises, with the layer's name.

What differs from eager attention: a token that may attend to nothing (padding on the left) gets 0 where eager gives it
the mean of all values, weights are those before dropout, and dropout drops other weights.
"""

from regard.adapters.huggingface.models import cache as cache
from regard.adapters.huggingface.models import output_attentions as output_attentions
from regard.adapters.huggingface.models import use as use
from regard.adapters.huggingface.models import using as using
from regard.adapters.huggingface.registry import register as register
from regard.adapters.huggingface.weights import Attentions as Attentions
