"""Which backend does a call, and that one asked for by name is used or refused, never replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

import regard as rg
from regard import _dispatch
from regard._call import Call, make_call
from regard._dispatch import backend, backend_names, choose, judge
from regard.backends.base import Backend, Capabilities, Result


def operands(length: int = 11, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = torch.randn(3, 2, 4, length, 8, dtype=dtype).unbind()
    return q, k, v


class TestChoosing:
    @pytest.mark.parametrize(
        ("options", "length", "expected"),
        [
            ({}, 11, "torch"),
            ({"mask": rg.Causal()}, 4099, "torch"),
            ({"mask": rg.Padding(torch.tensor([3, 5]))}, 4099, "torch"),
            ({"mask": rg.SlidingWindow(3)}, 11, "torch"),
            ({"mask": rg.SlidingWindow(3)}, 4099, "blockwise"),
            ({"mask": rg.Causal() & rg.Document(torch.zeros(4099, dtype=torch.int64))}, 4099, "blockwise"),
            ({"score_mod": rg.Softcap(3.0)}, 11, "blockwise"),
            ({"sinks": torch.zeros(4)}, 11, "blockwise"),
            ({"dropout_p": 0.5}, 11, "blockwise"),
        ],
        ids=repr,
    )
    @pytest.mark.usefixtures("without_kernels")
    def test_on_a_cpu_without_kernels(self, options: dict[str, Any], length: int, expected: str) -> None:
        assert choose(make_call(*operands(length), **options)).name == expected

    def test_asks_in_this_order(self) -> None:
        assert backend_names() == ("native", "torch", "flex", "blockwise", "reference")

    @pytest.mark.parametrize("name", backend_names())
    def test_by_name(self, name: str) -> None:
        assert choose(make_call(*operands()), name) is backend(name)

    def test_an_unknown_name(self) -> None:
        message = "backend must be one of 'native', 'torch', 'flex', 'blockwise', 'reference', or None .* got 'fast'"
        with pytest.raises(rg.ArgumentError, match=message):
            rg.attention(*operands(), backend="fast")

    def test_a_refusal_lists_every_reason(self) -> None:
        with pytest.raises(
            rg.UnsupportedError, match=r"backend='torch' cannot do this call: it .*sinks.*dropout"
        ) as info:
            rg.attention(*operands(), sinks=torch.zeros(4), dropout_p=0.5, backend="torch")
        assert len(info.value.reasons) == 2

    def test_a_refusal_draws_nothing_from_the_backends_that_could(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def run(self: Backend, call: Call) -> Result:
            raise AssertionError("a backend that was not asked for ran")

        for name in ("blockwise", "reference"):
            monkeypatch.setattr(type(backend(name)), "run", run)
        with pytest.raises(rg.UnsupportedError):
            rg.attention(*operands(), dropout_p=0.5, backend="torch")


class Scripted(Backend):
    """A backend that answers what it is told to."""

    summary = "for tests"
    capabilities = Capabilities()

    def __init__(self, name: str, against: str = "", discouraged: str = "") -> None:
        self.name = name  # type: ignore[misc]  # a name an instance
        self.against, self.advice = against, discouraged

    def unsupported(self, call: Call) -> list[str]:
        return [self.against] if self.against else []

    def discouraged(self, call: Call) -> list[str]:
        return [self.advice] if self.advice else []

    def run(self, call: Call) -> Result:
        raise NotImplementedError


class TestTheRule:
    @pytest.fixture
    def install(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        def install(*backends: Backend) -> None:
            monkeypatch.setattr(_dispatch, "_BACKENDS", {one.name: one for one in backends})

        return install

    def test_the_first_that_can_and_should(self, install: Callable[..., None]) -> None:
        install(Scripted("a", against="is no good"), Scripted("b", discouraged="is slow"), Scripted("c"), Scripted("d"))
        assert choose(make_call(*operands())).name == "c"

    def test_the_first_that_can_where_none_should(self, install: Callable[..., None]) -> None:
        install(Scripted("a", against="is no good"), Scripted("b", discouraged="is slow"), Scripted("c", "", "is big"))
        assert choose(make_call(*operands())).name == "b"

    def test_none_that_can(self, install: Callable[..., None]) -> None:
        install(Scripted("a", against="is no good"), Scripted("b", against="is worse"))
        with pytest.raises(rg.UnsupportedError, match=r"no backend can do this call. a: is no good; b: is worse\."):
            choose(make_call(*operands()))

    def test_a_mistake_in_a_capability_check_is_no_refusal(self, install: Callable[..., None]) -> None:
        class Broken(Scripted):
            def unsupported(self, call: Call) -> list[str]:
                raise ZeroDivisionError

        install(Broken("a"), Scripted("b"))
        for ask in (choose, judge):
            with pytest.raises(ZeroDivisionError):
                ask(make_call(*operands()))

    def test_verdicts_of_all(self, install: Callable[..., None]) -> None:
        install(Scripted("a", "is no good", "is slow"), Scripted("b", discouraged="is slow"))
        verdicts = judge(make_call(*operands()))
        assert verdicts == {"a": (("is no good",), ()), "b": ((), ("is slow",))}


TRANSFORMS: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor], Any]] = {
    "vmap": lambda f, x: torch.func.vmap(f)(x),
    "grad": lambda f, x: torch.func.grad(lambda y: f(y).sum())(x),
    "vjp": lambda f, x: torch.func.vjp(f, x)[0],
    "jvp": lambda f, x: torch.func.jvp(f, (x,), (x,)),
    "jacrev": lambda f, x: torch.func.jacrev(lambda y: f(y).sum())(x),
    "hessian": lambda f, x: torch.func.hessian(lambda y: f(y).sum())(x[:1, :1, :3]),
}


# torch's own forward mode scripts a function on first use.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
class TestTransforms:
    """`torch.func` and forward-mode derivatives are the reference's."""

    @pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
    def test_are_left_to_the_reference(self, transform: Callable[..., Any]) -> None:
        q, _, _ = operands(dtype=torch.float64)

        def attend(name: str | None) -> Callable[[Tensor], Tensor]:
            return lambda x: rg.attention(x, x, x, mask=rg.Causal(), backend=name)

        torch.testing.assert_close(transform(attend(None), q), transform(attend("reference"), q))
        for name in ("torch", "blockwise"):
            with pytest.raises(rg.UnsupportedError, match=r"torch\.func"):
                transform(attend(name), q)

    def test_forward_mode(self) -> None:
        q, k, v = operands(dtype=torch.float64)
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(q, torch.ones_like(q))
            out = rg.attention(dual, k, v)
            tangent = forward_ad.unpack_dual(out).tangent
            with pytest.raises(rg.UnsupportedError, match="forward-mode"):
                rg.attention(dual, k, v, backend="torch")
        expected = torch.func.jvp(lambda x: rg.attention(x, k, v, backend="reference"), (q,), (torch.ones_like(q),))[1]
        torch.testing.assert_close(tangent, expected)
