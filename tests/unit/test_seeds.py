import hashlib

from hypothesis import given
from hypothesis import strategies as st

from otus.seeds import derive_seed


def test_a_seed_never_changes():
    digest = hashlib.sha256(b"1\x1ftrain\x1f2").digest()
    assert derive_seed(1, "train", 2) == int.from_bytes(digest[:8], "big") // 2
    assert derive_seed(1) == 3874038210105081456


def test_every_part_and_their_order_and_borders_matter():
    seeds = [
        derive_seed(1), derive_seed(2), derive_seed(1, "a"), derive_seed(1, "a", "b"), derive_seed(1, "b", "a"),
        derive_seed(1, "ab"), derive_seed(1, "a", ""), derive_seed(12), derive_seed(1, 2),
    ]  # fmt: skip
    assert len(set(seeds)) == len(seeds)


@given(st.integers(min_value=0), st.lists(st.one_of(st.text(st.characters(codec="utf-8")), st.integers())))
def test_a_seed_fits_every_generator(seed, parts):
    assert 0 <= derive_seed(seed, *parts) < 2**63
