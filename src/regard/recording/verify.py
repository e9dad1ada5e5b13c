"""Whether a logsumexp belongs to its queries and keys: never trusted, always tried on a sample."""

from __future__ import annotations

import torch

from regard._errors import RecordError
from regard.head_scores import Material
from regard.recording.layer import Layer

_ROWS = 4


@torch.no_grad()
def check_lse(layer: Layer) -> None:
    """Compute the weights of a few rows and see whether they sum to 1, to 1 less the share of a learned sink.

    Raises:
        RecordError: they do not.
    """
    q_len = layer.q.shape[2]
    if not q_len or not layer.k.shape[2]:
        return
    rows = torch.linspace(0, q_len - 1, min(_ROWS, q_len), dtype=torch.float64).long().unique()
    of = Material(layer.call, layer.lse)
    sums = of.rows_of(rows).sum(-1)
    lse = layer.lse[:, :, rows]
    if layer.sinks is not None:
        sums = sums + torch.exp(layer.sinks.to(lse.dtype)[:, None] - lse)
    # A row that sees nothing has no weights and an lse of -inf, and one of NaN stays NaN.
    right = torch.where(lse == -torch.inf, sums == 0, (sums - 1).abs() <= _tolerance(layer.q.dtype))
    right |= sums.isnan() & lse.isnan()
    if not bool(right.all()):
        b, h, n = (int(x) for x in (~right).nonzero()[0])
        raise RecordError(
            f"the weights of batch entry {b}, head {layer.heads[h]}, query {int(rows[n])} sum to "
            f"{float(sums[b, h, n]):.6g} and not to 1: the recorded lse does not belong to the queries, keys and mask. "
            "load_record(path, recompute_lse=True) computes it anew."
        )


def _tolerance(dtype: torch.dtype) -> float:
    """What kernels may differ by in a row's sum: inputs of low precision, sums in float32."""
    return {torch.float64: 1e-9, torch.float32: 1e-3}.get(dtype, 1e-2)
