"""Numbers read the way people write them."""

import pytest

from randprune.report import format as f


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (f.percent(0.9213), "92.1 %"),
        (f.percent(1.0, 2), "100.00 %"),
        (f.points(-0.0126), "−1.3 points"),
        (f.points(0.02, 2), "+2.00 points"),
        (f.points(-0.00004), "0.0 points"),
        (f.number(50_000), "50,000"),
        (f.number(-3), "−3"),
        (f.number(0.123456), "0.1235"),
        (f.si(0), "0"),
        (f.si(12), "12.0"),
        (f.si(999.4), "999"),
        (f.si(999.7), "1.00 k"),
        (f.si(62_914_560), "62.9 M"),
        (f.si(125_485_706), "125 M"),
        (f.si(4.09e9, "MACs"), "4.09 GMACs"),
        (f.si(1.2e15), "1.20 P"),
        (f.tick(12_500_000), "12.5 M"),
        (f.tick(2000), "2 k"),
        (f.tick(0), "0"),
        (f.tick(-0.5), "−0.5"),
        (f.size(1_732_000), "1.73 MB"),
        (f.size(12), "12.0 B"),
        (f.seconds(0), "0 s"),
        (f.seconds(3.2e-5), "32.0 µs"),
        (f.seconds(0.0123), "12.3 ms"),
        (f.seconds(0.9997), "1.00 s"),
        (f.seconds(59.94), "59.9 s"),
        (f.seconds(59.96), "1 min 00 s"),
        (f.seconds(192), "3 min 12 s"),
        (f.seconds(3599.7), "1 h 00 min"),
        (f.seconds(3900), "1 h 05 min"),
        (f.seconds(400_000), "111 h 07 min"),
        (f.times(2.13), "2.1×"),
        (f.times(1.934), "1.93×"),
        (f.speed(2.13), "2.1× faster"),
        (f.speed(0.84), "1.19× slower"),
        (f.speed(1.003), "1.00× as fast"),
        (f.tiny(3.1e-7), "3.1·10⁻⁷"),
        (f.tiny(1e-4), "1·10⁻⁴"),
        (f.tiny(0.0), "0"),
        (f.moment("2026-11-21T01:51:36.123Z"), "2026-11-21 01:51 UTC"),
        (f.moment(""), ""),
        (f.elapsed("2026-11-21T01:51:36Z", "2026-11-21T01:52:36.500Z"), 60.5),
        (f.elapsed("2026-11-21T01:51:36Z", "killed"), None),
    ],
)
def test_formats(found: object, expected: object) -> None:
    assert (found.replace("\u00a0", " ") if isinstance(found, str) else found) == expected


@pytest.mark.parametrize("value", [0.0, 1e-9, 0.00999, 0.0999, 9.9951, 99.951, 1e21, 12345.0])
def test_three_digits_always(value: float) -> None:
    digits = [c for c in f.si(value).split("\u00a0")[0] if c.isdigit()]
    significant = "".join(digits).lstrip("0")
    assert len(significant) == 3 or value in (0.0, 1e21)
