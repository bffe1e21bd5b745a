"""Arrays and tables count by labels, dtypes, shape and content, however they lie in memory."""

import copy

import pytest

from upwell.core.keys import digest


def test_arrays_count_by_dtype_shape_and_content_however_they_lie_in_memory() -> None:
    np = pytest.importorskip("numpy")
    big = np.arange(40_000.0).reshape(100, 400)
    for array in (np.arange(12).reshape(3, 4), big):
        expected = digest(array)
        assert digest(np.asfortranarray(array)) == expected
        assert digest(np.repeat(array, 2, axis=0)[::2]) == expected
        assert digest(array.astype(array.dtype.newbyteorder(">"))) != expected
        assert digest(array.T) != expected
        assert digest(array.ravel()) != expected
        assert digest(array.tolist()) != expected
        changed = array.copy()
        changed[-1, -1] += 1
        assert digest(changed) != expected
    assert digest(np.zeros(3, "i4")) != digest(np.zeros(3, "f4"))
    assert digest(np.array([1, "a", None], object)) == digest(np.array([1, "a", None], object))
    assert digest(np.array([1, "a", None], object)) != digest(np.array([1, "a", 0], object))
    assert digest(np.float64(1)) == digest(np.float64(1)) != digest(1.0) != digest(np.float32(1))
    assert digest(np.array(5)) != digest(np.int64(5))
    assert digest(np.empty((0, 3))) != digest(np.empty((3, 0)))
    assert digest(np.longdouble(1) / 3) == digest(np.longdouble(1) / 3)
    assert digest(np.array(["2026-01-01"], "M8[D]")) != digest(np.array(["2026-01-01"], "M8[s]"))


def test_what_nobody_can_read_in_an_array_does_not_count() -> None:
    np = pytest.importorskip("numpy")
    padded = np.dtype([("a", "i1"), ("b", "i8")], align=True)
    ones, zeros = np.frombuffer(b"\x01" * 16, padded).copy(), np.zeros(1, padded)
    zeros["a"], zeros["b"] = ones["a"], ones["b"]
    assert digest(ones) == digest(zeros)
    assert digest(np.ma.array([1, 2], mask=[0, 1])) == digest(np.ma.array([1, 3], mask=[0, 1]))
    assert digest(np.ma.array([1, 2], mask=[0, 1])) != digest(np.ma.array([1, 2], mask=[0, 0]))


def test_tables_count_by_labels_dtypes_and_content() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", None], "c": pd.to_datetime(["2026-01-01"] * 3, utc=True)})
    assert digest(frame) == digest(frame.copy()) == digest(pd.concat([frame[["a"]], frame[["b", "c"]]], axis=1))
    twin = frame[["a", "b"]].copy()
    twin["c"] = frame["c"]
    assert digest(twin) == digest(frame)
    variants = [
        frame.assign(a=[1, 2, 4]),
        frame.rename(columns={"a": "z"}),
        frame.set_index("a"),
        frame[["b", "a", "c"]],
        frame.astype({"a": "float64"}),
        frame.astype({"a": "Int64"}),
        frame.astype({"b": "category"}),
        frame["a"],
        frame.index,
        frame.set_index(["a", "b"]).index,
        frame.iloc[::-1],
        pd.Timestamp("2026-01-01"),
        pd.NA,
        pd.NaT,
    ]
    digests = {digest(variant) for variant in [frame, *variants]}
    assert len(digests) == len(variants) + 1
    assert digests == {digest(copy.deepcopy(variant)) for variant in [frame, *variants]}
