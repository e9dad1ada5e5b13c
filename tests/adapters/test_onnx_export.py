"""Modules exported to ONNX: other runtimes give what regard gives, at lengths that the export did not see."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import regard as rg
from regard.adapters import onnx as bridge

reference = pytest.importorskip("onnx.reference")
runtime = pytest.importorskip("onnxruntime")
B, L, E, H = 2, 9, 12, 6
BATCH, LENGTH = torch.export.Dim("batch"), torch.export.Dim("length", min=2, max=64)


def layer(**options: Any) -> rg.nn.MultiHeadAttention:
    torch.manual_seed(5)
    module = rg.nn.MultiHeadAttention(E, E, 64, 0.1, H, **options)
    for p in module.parameters():
        nn.init.normal_(p, std=0.5)
    return module


def assert_equal_elsewhere(program: Any, module: nn.Module, *inputs: Tensor) -> None:
    """The reference evaluator and onnxruntime on ``inputs``."""
    model = program.model_proto
    feed = {value.name: x.numpy() for value, x in zip(model.graph.input, inputs, strict=True)}
    module.eval()
    with torch.no_grad():
        expected = module(*inputs)
    outs = {
        "the reference evaluator": reference.ReferenceEvaluator(model).run(None, feed)[0],
        "onnxruntime": runtime.InferenceSession(model.SerializeToString()).run(None, feed)[0],
    }
    for name, out in outs.items():
        torch.testing.assert_close(
            torch.from_numpy(out),
            expected,
            rtol=1e-5,
            atol=1e-5 * float(expected.abs().max()),
            msg=partial("{}: {}".format, name),
        )


def operators(program: Any) -> list[str]:
    return [node.op_type for node in program.model_proto.graph.node]


AS_ONE_OPERATOR: dict[str, dict[str, Any]] = {
    "full": {"mask": None, "qkv_bias": True},
    "causal, grouped, rotary, norm, softcap": {
        "num_kv_heads": 2,
        "rope": rg.nn.RotaryEmbedding(2),
        "qk_norm": nn.RMSNorm,
        "score_mod": rg.Softcap(2.0),
    },
    "rotary beyond the trained length": {
        "head_dim": 4,
        "rope": rg.nn.RotaryEmbedding(4, scaling=rg.nn.DynamicNTK(2.0, 8)),
    },
}
BY_THE_DEFINITION: dict[str, dict[str, Any]] = {
    "window and sinks": {"mask": rg.Causal() & rg.SlidingWindow(3), "num_kv_heads": 2, "sinks": True},
    "documents, relative bias, cap": {
        "mask": rg.Causal() & rg.Document(torch.arange(64) // 4),
        "score_mod": [rg.RelativeBias(H), rg.Softcap(3.0)],
    },
}


@pytest.mark.parametrize("name", [*AS_ONE_OPERATOR, *BY_THE_DEFINITION])
def test_other_runtimes_give_the_same_at_other_lengths(name: str) -> None:
    module = layer(**(AS_ONE_OPERATOR | BY_THE_DEFINITION)[name]).train()
    program = bridge.export(module, (torch.randn(B, L, E),), dynamic_shapes=({0: BATCH, 1: LENGTH},))
    assert module.training
    assert operators(program).count("Attention") == (name in AS_ONE_OPERATOR)
    for size in ((B, L), (3, 17), (1, 2)):
        assert_equal_elsewhere(program, module, torch.randn(*size, E))


class Padded(nn.Module):
    """Lengths of the sequences, a mask tensor and other tokens as inputs of the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = layer(mask=None)

    def forward(self, x: Tensor, context: Tensor, lengths: Tensor, allowed: Tensor) -> Tensor:
        mask = rg.Padding(lengths) & rg.Dense(allowed)
        out: Tensor = self.attention(x, context=context, mask=mask)
        return out


def test_masks_whose_tensors_are_inputs_of_the_graph() -> None:
    def inputs(batch: int, q_len: int, k_len: int) -> tuple[Tensor, ...]:
        lengths = torch.arange(batch) % (k_len + 1)  # the first sequence has no token at all
        return torch.randn(batch, q_len, E), torch.randn(batch, k_len, E), lengths, torch.rand(q_len, k_len) < 0.7

    keys = torch.export.Dim("keys", min=2, max=64)
    module = Padded().eval()
    program = bridge.export(
        module,
        inputs(3, L, 7),
        dynamic_shapes=({0: BATCH, 1: LENGTH}, {0: BATCH, 1: keys}, {0: BATCH}, {0: LENGTH, 1: keys}),
    )
    for size in ((3, L, 7), (5, 4, 12)):
        assert_equal_elsewhere(program, module, *inputs(*size))


class Encoder(nn.Module):
    """torch's own encoder layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(E, H, 16, batch_first=True)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        out: Tensor = self.layer(x, src_key_padding_mask=hidden)
        return out


def test_a_model_with_replaced_modules() -> None:
    module = Encoder().eval()
    rg.replace(module)
    hidden = torch.arange(L) >= torch.tensor([[L], [4]])
    shapes = ({0: BATCH, 1: LENGTH}, {0: BATCH, 1: LENGTH})
    program = bridge.export(module, (torch.randn(B, L, E), hidden), dynamic_shapes=shapes)
    assert_equal_elsewhere(program, module, torch.randn(B, L, E), hidden)
    assert_equal_elsewhere(program, module, torch.randn(3, 5, E), torch.arange(5) >= torch.tensor([[2], [5], [1]]))


@pytest.mark.usefixtures("without_kernels")
def test_without_kernels_the_model_is_as_good() -> None:
    module = layer(mask=rg.Causal() & rg.SlidingWindow(3))
    program = bridge.export(module, (torch.randn(B, L, E),), dynamic_shapes=({0: BATCH, 1: LENGTH},))
    assert_equal_elsewhere(program, module, torch.randn(3, 17, E))


def test_a_fixed_length_and_a_file(tmp_path: Any) -> None:
    import onnx

    module = layer()
    x = torch.randn(B, L, E)
    path = tmp_path / "layer.onnx"
    bridge.export(module, (x,)).save(path)
    onnx.checker.check_model(onnx.load(path))
    out = runtime.InferenceSession(path).run(None, {"x": x.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(out), module.eval()(x), rtol=1e-5, atol=1e-5)


def test_what_cannot_be_exported_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(rg.KindError, match=r"export takes a torch\.nn\.Module: got 3"):
        bridge.export(3, ())  # type: ignore[arg-type]
    with pytest.raises(rg.ArgumentError, match="came with opset 23: got opset=18"):
        bridge.export(layer(), (torch.randn(B, L, E),), opset=18)
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(rg.MissingError, match=r"pip install 'regard\[onnx\]'"):
        bridge.export(layer(), (torch.randn(B, L, E),))
