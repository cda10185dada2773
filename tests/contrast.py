"""How well colours are told apart, and what the colours of common terminals are.

The ratio is that of WCAG 2.x, "relative luminance" and "contrast ratio" (https://www.w3.org/TR/WCAG22/#dfn-relative-luminance);
3 : 1 is what it asks of large text and of whatever else carries meaning (success criteria 1.4.3 and 1.4.11).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

BLACK, WHITE = "#000000", "#ffffff"
LEAST = 3.0

#: The first 16 colours: xterm's (XTerm-col.ad), those of PCs and the Linux console, Solarized's (ethanschoonover.com).
PALETTES = {
    "xterm": (
        *("#000000", "#cd0000", "#00cd00", "#cdcd00", "#0000ee", "#cd00cd", "#00cdcd", "#e5e5e5"),
        *("#7f7f7f", "#ff0000", "#00ff00", "#ffff00", "#5c5cff", "#ff00ff", "#00ffff", "#ffffff"),
    ),
    "vga": (
        *("#000000", "#aa0000", "#00aa00", "#aa5500", "#0000aa", "#aa00aa", "#00aaaa", "#aaaaaa"),
        *("#555555", "#ff5555", "#55ff55", "#ffff55", "#5555ff", "#ff55ff", "#55ffff", "#ffffff"),
    ),
    "solarized": (
        *("#073642", "#dc322f", "#859900", "#b58900", "#268bd2", "#d33682", "#2aa198", "#eee8d5"),
        *("#002b36", "#cb4b16", "#586e75", "#657b83", "#839496", "#6c71c4", "#93a1a1", "#fdf6e3"),
    ),
}
#: Dark and light, on which text of a palette stands.
BACKGROUNDS = {"xterm": (BLACK, WHITE), "vga": (BLACK, WHITE), "solarized": ("#002b36", "#fdf6e3")}
LEVELS = (0, 95, 135, 175, 215, 255)  # of the cube of colours 16 to 231


def colour(number: int, palette: str) -> str:
    """A colour by its number, 0 to 255, as `#rrggbb`."""
    if number < 16:
        return PALETTES[palette][number]
    if number < 232:
        parts = ((number - 16) // 36, (number - 16) // 6 % 6, (number - 16) % 6)
        return "#" + "".join(f"{LEVELS[part]:02x}" for part in parts)
    return "#" + f"{8 + 10 * (number - 232):02x}" * 3


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb`: 0 is black, 1 is white."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def ratio(one: str, other: str) -> float:
    """Contrast of two colours: 1 for the same, 21 for black and white."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def weakest(foreground: int | None, background: int | None) -> float:
    """The weakest contrast of a text, over palettes; where one of both is the terminal's own, over dark and light."""
    found = []
    for palette, grounds in BACKGROUNDS.items():
        given = [colour(number, palette) for number in (foreground, background) if number is not None]
        others = given[1:] or grounds
        found += [ratio(given[0], other) for other in others]
    return min(found)


def sent(data: bytes) -> Iterator[tuple[int | None, int | None]]:
    """Text colour and background, by number, of each sequence for a terminal that sets one; None = its own."""
    for words in re.findall(rb"\x1b\[([0-9;]*)m", data):
        numbers = [int(word or 0) for word in words.split(b";")]
        found: dict[int, int] = {}
        while numbers:
            one = numbers.pop(0)
            if one in (38, 48):
                assert numbers[:1] == [5], f"a colour by its parts: {words!r}"
                found[one], numbers = numbers[1], numbers[2:]
            elif one // 10 in (3, 4) and one % 10 < 8:
                found[38 if one < 40 else 48] = one % 10
            elif one // 10 in (9, 10) and one % 10 < 8:
                found[38 if one < 100 else 48] = one % 10 + 8
        if found:
            yield found.get(38), found.get(48)
