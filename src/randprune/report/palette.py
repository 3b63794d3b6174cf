"""The colours of figures outside of a page, by the names that charts have."""

PALETTE = {
    "dense": "#5b6573",
    "searched": "#0f62b5",
    "uniform": "#c2570c",
    "random_channels": "#a8327d",
    "candidate": "#7fabdb",
    "muted": "#c9d0d9",
    "series_1": "#0b7a75",
    "series_2": "#6941c6",
    "series_3": "#8a6d00",
    "series_4": "#b42318",
    "series_5": "#3f7d20",
    "series_6": "#1f2937",
}
"""The page's light scheme (assets/page.css); a test keeps the two alike."""

INK, GRID, LINE, CARD = "#1b2430", "#e6e9ee", "#98a2b3", "#ffffff"
"""Of the same scheme: text, grid, axes, background."""
