import pytest

from vault.errors import Invalid
from vault.media.sizes import in_mib, parse_size


def test_a_size_is_a_whole_number_and_its_unit():
    assert [parse_size(text) for text in ("0B", "512B", "8 KiB", "50MiB", "1GiB")] == [0, 512, 8192, 50 << 20, 1 << 30]
    for text in ("", "5", "5MB", "-1B", "1.5MiB", "1mib"):
        with pytest.raises(Invalid):
            parse_size(text)


def test_bytes_are_shown_in_mib_with_three_digits_that_count():
    sizes = (0, 480_000, 10_480_000, 12_900_000, 104_800_000, 1_300_000_000)
    assert [in_mib(size) for size in sizes] == ["0.00", "0.46", "9.99", "12.3", "99.9", "1240"]
