import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iquitos_rl.buffers.codecs import CODECS, Codec, Layout
from iquitos_rl.errors import UserError

CPU = torch.device("cpu")


def through(values, name):
    """Numbers stored by a codec and read back."""
    stored = CODECS[name].encode(values[None])
    assert stored.dtype == torch.uint8
    assert stored.shape == (1, CODECS[name].nbytes(len(values)))
    back = torch.empty(1, len(values))
    CODECS[name].decode(stored, back)
    return back[0]


def test_uint8_is_exact_where_it_matters_and_never_off_by_more_than_half_a_step():
    exact = torch.tensor([-1.0, 0.0, 1.0])
    assert torch.equal(through(exact, "uint8"), exact)
    values = torch.linspace(-1, 1, 100_001)
    error = (through(values, "uint8") - values).abs()
    assert error.max() <= 1 / 254 + 1e-7
    assert (through(values, "uint8").diff() >= 0).all()


def test_float16_keeps_eleven_bits():
    values = torch.cat([torch.linspace(-1, 1, 10_001), torch.linspace(-65_000, 65_000, 10_001)])
    error = (through(values, "float16") - values).abs()
    assert (error <= torch.maximum(values.abs() * 2**-11, torch.tensor(2.0**-25))).all()


def test_uint8_saturates_and_counts():
    layout = Layout("observation", ["uint8", "float32", "uint8"], None, CPU)
    values = torch.tensor([[1.5, 9.0, -1.0], [-3.0, -9.0, 1.001], [0.5, 2.0, 0.0]])
    assert int(layout.saturated(values)) == 3
    back = layout.decode(layout.encode(values))
    assert back[:2, [0, 2]].tolist() == [[1, -1], [-1, 1]]
    assert torch.equal(back[:, 1], values[:, 1])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["float32", "float16", "uint8"]), min_size=1, max_size=12), st.integers(0, 12), st.data()
)
def test_any_mixture_of_columns_comes_back_in_its_place(codecs, known, data):
    known = min(known, len(codecs))
    g = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    table = torch.randn(7, known, generator=g) if known else None
    layout = Layout("observation", codecs, table, CPU)
    values = torch.rand(5, len(codecs), generator=g) * 2 - 1
    row = torch.randint(7, (5,), generator=g)
    if table is not None:
        values[:, :known] = table[row]
    records = layout.encode(values, row if known else None)
    stored = codecs[known:]
    bytes_needed = sum({"float32": 4, "float16": 2, "uint8": 1}[codec] for codec in stored) + (4 if known else 0)
    assert bytes_needed <= records.shape[1] == layout.nbytes < bytes_needed + 4
    back = layout.decode(records)
    for i, codec in enumerate(codecs):
        allowed = 0 if i < known else {"float32": 0, "float16": 2**-11, "uint8": 1 / 254 + 1e-7}[codec]
        assert (back[:, i] - values[:, i]).abs().max() <= allowed


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 70_000.0])
def test_what_cannot_be_stored_is_named(bad):
    layout = Layout("observation", ["uint8", "float16"], None, CPU)
    values = torch.zeros(3, 2)
    values[2, 1] = bad
    fits = layout.fitting(values)
    assert fits.sum() == 5
    with pytest.raises(UserError, match=r"observation column 1 of environment 2 is .*float16"):
        layout.check(values, fits)


def nibbles():
    """Sixteen levels, two numbers in a byte."""

    def encode(values):
        levels = torch.nn.functional.pad(
            (values.clamp(-1, 1) * 7).round().add(7).to(torch.uint8), (0, values.shape[1] % 2)
        )
        return levels[:, ::2] * 16 + levels[:, 1::2]

    def decode(stored, out):
        both = torch.stack([stored // 16, stored % 16], dim=-1).flatten(1)
        out.copy_(both[:, : out.shape[1]]).sub_(7).div_(7)

    return Codec(lambda count: (count + 1) // 2, encode, decode, bounded=True)


@pytest.mark.parametrize("columns", [1, 2, 5])
def test_a_codec_may_put_several_numbers_into_a_byte(columns, monkeypatch):
    monkeypatch.setitem(CODECS._entries, "int4", nibbles())
    layout = Layout("observation", ["float16", *["int4"] * columns, "float16"], None, CPU)
    assert layout.nbytes == 4 + (columns + 1) // 2 + (columns + 1) // 2 % 2
    values = torch.rand(6, columns + 2) * 2 - 1
    back = layout.decode(layout.encode(values))
    assert (back[:, 1:-1] - values[:, 1:-1]).abs().max() <= 1 / 14 + 1e-6
    assert (back[:, [0, -1]] - values[:, [0, -1]]).abs().max() <= 2**-11
    assert int(layout.saturated(2 * torch.ones(3, columns + 2))) == 3 * columns


def test_a_layout_of_an_unknown_codec_is_refused():
    with pytest.raises(UserError, match="there is no codec 'int3'; there are float32, float16, uint8"):
        Layout("observation", ["int3"], None, CPU)
