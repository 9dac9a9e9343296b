import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iquitos_rl.buffers.codecs import Layout, decode, encode
from iquitos_rl.errors import UserError

CPU = torch.device("cpu")


def test_uint8_is_exact_where_it_matters_and_never_off_by_more_than_half_a_step():
    exact = torch.tensor([-1.0, 0.0, 1.0])
    assert torch.equal(decode(encode(exact, "uint8"), "uint8"), exact)
    values = torch.linspace(-1, 1, 100_001)
    error = (decode(encode(values, "uint8"), "uint8") - values).abs()
    assert error.max() <= 1 / 254 + 1e-7
    assert (decode(encode(values, "uint8"), "uint8").diff() >= 0).all()


def test_float16_keeps_eleven_bits():
    values = torch.cat([torch.linspace(-1, 1, 10_001), torch.linspace(-65_000, 65_000, 10_001)])
    error = (decode(encode(values, "float16"), "float16") - values).abs()
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
        layout.refuse(values, fits)
