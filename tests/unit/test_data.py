"""Data sets: what is accepted, what is refused and how, the split and the order."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.errors import DataError, UsageError
from strop.host.data import Order, Signature, load_data, sample_data

IMAGE = Signature((1, 8, 8), (), 10, 1)
ROW = Signature((3,), (), 4, 2)


def arrays(n: int = 12) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {"x": random.random((n, 3), np.float32), "y": np.arange(n, dtype=np.int64) % 4}


def save(folder: Path, **changes: np.ndarray) -> str:
    path = folder / "data.npz"
    np.savez(path, **{**arrays(), **changes})
    return str(path)


def with_value(name: str, where: int, value: float) -> np.ndarray:
    data = arrays()[name]
    data.reshape(len(data), -1)[where, -1] = value
    return data


def test_digits_fit_images_and_rows() -> None:
    images, rows = (load_data("digits", signature) for signature in (IMAGE, Signature((64,), (), 10, 1)))
    assert images.x.shape == (1437, 1, 8, 8)
    assert images.x_test.shape == (360, 1, 8, 8)
    assert images.x.dtype == np.float32
    assert images.y.dtype == np.int32
    assert images.x.min() == 0
    assert images.x.max() == 1
    np.testing.assert_array_equal(images.x.reshape(-1, 64), rows.x)
    assert np.ptp(np.bincount(images.y_test)) <= 2, "the classes are held out evenly"


def test_split_depends_on_the_seed_alone() -> None:
    first, again, other = (load_data("digits", IMAGE, seed=seed) for seed in (0, 0, 1))
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != other.fingerprint


def test_no_sample_is_on_both_sides(tmp_path: Path) -> None:
    x = np.arange(36, dtype=np.float32).reshape(12, 3)
    data = load_data(save(tmp_path, x=x), ROW, split=0.5)
    assert len(data.x_test) == 6
    assert sorted([*data.x[:, 0], *data.x_test[:, 0]]) == list(x[:, 0])


def test_npz_with_its_own_test_part(tmp_path: Path) -> None:
    data = load_data(save(tmp_path, x_test=np.ones((2, 3)), y_test=np.array([0, 3])), ROW)
    assert len(data.x) == 12, "what the author has split is not split again"
    np.testing.assert_array_equal(data.y_test, [0, 3])


def test_whole_numbers_and_doubles_become_float32(tmp_path: Path) -> None:
    for dtype in (np.uint8, np.int32, np.float64):
        assert load_data(save(tmp_path, x=np.ones((12, 3), dtype)), ROW).x.dtype == np.float32


def test_callable(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import numpy as np\ndef pair(): return np.ones((9, 3)), np.zeros(9, int)\ndef one(): return 5\n"
                    "def fails(): return 1 / 0\n")
    assert len(load_data(f"{file}:pair", ROW, split=0).x) == 9
    with pytest.raises(DataError, match="returns int"):
        load_data(f"{file}:one", ROW)
    with pytest.raises(UsageError, match=r"ZeroDivisionError.*mine\.py:4"):
        load_data(f"{file}:fails", ROW)
    with pytest.raises(UsageError, match="no callable 'nothing'"):
        load_data(f"{file}:nothing", ROW)


def test_one_hot_for_a_regression_on_classes(tmp_path: Path) -> None:
    data = load_data(save(tmp_path), Signature((3,), (4,), 0, 1), split=0)
    np.testing.assert_array_equal(data.y.argmax(axis=1), arrays()["y"])
    assert data.y.dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.ones((12, 4))}, r"shape is \(12, 4\), the model takes \(n, 3\)"),
        ({"x": np.ones((12, 3, 1))}, r"Try reshape\(-1, 3\)"),
        ({"x": np.array(["a"] * 12)}, "dtype is <U1"),
        ({"x": with_value("x", 7, np.nan)}, "sample 7 holds nan"),
        ({"x": with_value("x", 3, -np.inf)}, "sample 3 holds -inf"),
        ({"x": np.full((12, 3), 1e39)}, "sample 0 holds inf, and 11 more"),
        ({"y": with_value("y", 5, 4)}, "sample 5 has label 4, the model's classes are 0 to 3"),
        ({"y": with_value("y", 2, -1)}, "sample 2 has label -1"),
        ({"y": np.zeros(12)}, "dtype is float64, a class is an integer"),
        ({"y": np.zeros((12, 4), int)}, "one-hot"),
        ({"y": np.zeros(11, int)}, "12 samples, y has shape"),
        ({"x": np.ones((1, 3)), "y": np.zeros(1, int)}, "1 samples, fewer than a batch of 2"),
        ({"x_test": np.ones((2, 3))}, "x_test but no y_test"),
        ({"x_test": np.ones((2, 3)), "y_test": np.array([0, 9])}, "y_test.*|sample 1 has label 9"),
    ],
)
def test_bad_npz(tmp_path: Path, changes: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_data(save(tmp_path, **changes), ROW)
    assert "data.npz" in str(caught.value)
    assert caught.value.do


@pytest.mark.parametrize("size", [0, 10, 300, -100, -1])
def test_truncated_npz(tmp_path: Path, size: int) -> None:
    path = Path(save(tmp_path))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=r"damaged or cut short.*data\.npz"):
        load_data(str(path), ROW)


def test_damaged_npz(tmp_path: Path) -> None:
    path = Path(save(tmp_path, x=np.random.default_rng(0).random((12, 3))))
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match="is damaged"):
        load_data(str(path), ROW)


def test_missing_things(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", images=np.ones(3))
    for spec, message in {
        "digit": "Did you mean 'digits'",
        str(tmp_path / "nothing.npz"): "does not exist",
        str(tmp_path / "other.npz"): "no array 'x', only images",
    }.items():
        with pytest.raises(DataError, match=message):
            load_data(spec, ROW)
    with pytest.raises(DataError, match=r"8 x 8.*\(3,\)"):
        load_data("digits", ROW)


@given(st.integers(1, 40), st.integers(1, 5), st.lists(st.integers(0, 90), min_size=3, max_size=3))
def test_order_can_be_taken_up_anywhere(samples: int, batch: int, stops: list[int]) -> None:
    order = Order(samples + batch, batch, seed=3)
    a, b, c = sorted(stops)
    np.testing.assert_array_equal(
        np.concatenate([order.indices(a, b), order.indices(b, c)]), order.indices(a, c)
    )
    assert len(order.indices(a, c)) == (c - a) * batch


def test_order_visits_every_sample_once_an_epoch() -> None:
    order = Order(20, 3, seed=1)
    first, second = order.indices(0, 6), order.indices(6, 12)
    assert len(set(first)) == len(set(second)) == 18
    assert list(first) != list(second)
    assert list(order.indices(0, 6)) != list(Order(20, 3, seed=2).indices(0, 6))


def test_sample_data_fits_any_model() -> None:
    noise = sample_data(Signature((3, 5), (2,), 0, 1), 7, seed=1)
    assert noise.x.shape == (7, 3, 5)
    assert noise.y.shape == (7, 2)
    assert sample_data(Signature((3,), (), 4, 1), 50).y.max() == 3
    assert sample_data(IMAGE, 7).source == "digits"


def test_messages_are_one_paragraph(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_data(save(tmp_path, x=with_value("x", 1, np.nan)), ROW)
    assert re.fullmatch(r"[^\n]+\.", str(caught.value))
