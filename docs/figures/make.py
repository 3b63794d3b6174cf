"""The pictures of README.md, from committed results.

python docs/figures/make.py result    # result.svg, from the tables in docs/results
python docs/figures/make.py report    # report.png: a committed report in a browser (chromium)
"""

from __future__ import annotations

import argparse
import csv
import io
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results"

# ---------------------------------------------------------------------------- result.svg

# Panels: folder in docs/results, and what its heading says.
PANELS = (
    ("resnet20-cifar10-default", "ResNet-20"),
    ("resnet56-cifar10-default", "ResNet-56"),
)
# Roles in the tables, as readers know them, with the colours of the report.
ROLES = (
    ("dense", "dense network", "#5a6270"),
    ("searched", "randprune", "#1161b0"),
    ("uniform", "uniform widths", "#c4500c"),
    ("random_channels", "random channels", "#a8287f"),
)
# Tables of earlier runs call the searched network by its strategy.
OLDER = {"random": "searched"}
WIDTH, LEFT, RIGHT = 760, 150, 100
ROW, HEADING, TOP, AXIS = 27, 34, 52, 62
LOW, HIGH, STEP = 76, 96, 4
INK, FAINT, GRID = "#1c2430", "#5a6270", "#e3e6ea"


@dataclass(frozen=True)
class Network:
    """Accuracies in percent with their 95 % interval, MACs relative to the dense network."""

    role: str
    accuracy: float
    low: float
    high: float
    macs: float


def networks(folder: str) -> dict[str, Network]:
    """The networks of a result before any training, by role."""
    with (RESULTS / folder / "networks.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["stage"] in ("dense", "repaired")]
    dense = next(float(row["macs"]) for row in rows if row["role"] == "dense")
    found: dict[str, Network] = {}
    for row in rows:
        role = OLDER.get(row["role"], row["role"])
        found.setdefault(
            role,
            Network(
                role,
                *(100 * float(row[key]) for key in ("test_top1", "test_low", "test_high")),
                float(row["macs"]) / dense,
            ),
        )
    return found


def x(percent: float) -> float:
    return LEFT + (percent - LOW) / (HIGH - LOW) * (WIDTH - LEFT - RIGHT)


def text(
    at: tuple[float, float], words: str, size: int = 14, fill: str = INK, extra: str = ""
) -> str:
    return (
        f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" font-size="{size}" fill="{fill}"{extra}>'
        f"{escape(words)}</text>"
    )


def result_svg() -> str:
    """The chart: a dot and its interval for each network. On a card, for light and dark pages."""
    height = TOP + len(PANELS) * (HEADING + len(ROLES) * ROW) + AXIS
    bold, end, middle = ' font-weight="600"', ' text-anchor="end"', ' text-anchor="middle"'
    body: list[str] = []
    for percent in range(LOW, HIGH + 1, STEP):
        body += [
            f'<line x1="{x(percent):.1f}" x2="{x(percent):.1f}" y1="{TOP}" y2="{height - AXIS}" '
            f'stroke="{GRID}"/>',
            text((x(percent), height - AXIS + 20), f"{percent} %", 12, FAINT, middle),
        ]
    y = float(TOP)
    spoken: list[str] = []
    for folder, title in PANELS:
        found = networks(folder)
        y += HEADING
        body.append(text((24, y - 10), title, 14, INK, bold))
        for role, name, colour in ROLES:
            network = found[role]
            middle_y = y + ROW / 2
            weight = bold if role == "searched" else ""
            body += [
                text((LEFT - 14, middle_y + 5), name, 13, INK, end + weight),
                f'<line x1="{x(network.low):.1f}" x2="{x(network.high):.1f}" y1="{middle_y}" '
                f'y2="{middle_y}" stroke="{colour}" stroke-width="2.5"/>',
                f'<circle cx="{x(network.accuracy):.1f}" cy="{middle_y}" r="5.5" fill="{colour}"/>',
                text(
                    (WIDTH - 24, middle_y + 5),
                    f"{network.accuracy:.1f} %",
                    13,
                    INK,
                    end + weight,
                ),
            ]
            spoken.append(f"{title}, {name}: {network.accuracy:.1f} %")
            y += ROW
    said = "Test accuracy on CIFAR-10 at half of the MACs, before any training"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" role="img" '
            "font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\">",
            f"<title>{escape(said)}. {escape('; '.join(spoken))}.</title>",
            f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="10" '
            'fill="#ffffff" stroke="#d0d5db"/>',
            text((24, 34), said, 16, INK, bold),
            *body,
            text(
                (24, height - 16),
                "Same repair in all rows. Bars: 95 % intervals over 10,000 test images. One seed.",
                12,
                FAINT,
            ),
            "</svg>",
            "",
        ]
    )


# ---------------------------------------------------------------------------- report.png

REPORT = RESULTS / "resnet20-cifar10-default" / "report.html"
VIEW = (1120, 900)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def report_png() -> bytes:
    """The top of a committed report as a browser shows it, in 256 colours."""
    from PIL import Image

    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"No browser to take the picture with: none of {', '.join(BROWSERS)}.")
    with tempfile.TemporaryDirectory() as folder:
        taken = Path(folder) / "report.png"
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--no-first-run", "--virtual-time-budget=5000", "--force-device-scale-factor=1.5",
            f"--user-data-dir={folder}/profile", f"--window-size={VIEW[0]},{VIEW[1]}",
            f"--screenshot={taken}", REPORT.as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        buffer = io.BytesIO()
        with Image.open(taken) as image:
            image.convert("RGB").quantize(256).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("picture", choices=("result", "report"))
    if parser.parse_args().picture == "result":
        path, content = HERE / "result.svg", result_svg().encode("utf-8")
    else:
        path, content = HERE / "report.png", report_png()
    path.write_bytes(content)
    print(f"{path.relative_to(HERE.parents[1])}: {len(content):,} bytes")


if __name__ == "__main__":
    main()
