"""Where nodes stand on a plane: as far from each other as there are lines between them, and never on each other.

By stress majorization, without numbers from outside: the same graph is drawn the same way each time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence

Place = tuple[float, float]

ROUNDS = 120
ENOUGH = 1e-3  # a round that moves no node farther than this is the last
APART = 1.5  # lines between parts that nothing joins
EXACT = 80  # with more points, fewer rounds: each takes the square of their number


def spread(points: Sequence[str], pairs: Sequence[tuple[str, str]], room: Place) -> dict[str, Place]:
    """A place for each point, in pixels; all are right of and below (0, 0).

    Args:
        points: keys.
        pairs: which are joined.
        room: width and height that each point needs for itself.
    """
    near: dict[str, set[str]] = {point: set() for point in points}
    for one, other in pairs:
        near[one].add(other)
        near[other].add(one)
    at = _settled(_circle(points, near), near)
    scale = _scale(list(at.values()), room)
    left = min((x for x, _y in at.values()), default=0.0)
    top = min((y for _x, y in at.values()), default=0.0)
    return {point: (round((x - left) * scale, 1), round((y - top) * scale, 1)) for point, (x, y) in at.items()}


def _circle(points: Sequence[str], near: Mapping[str, set[str]]) -> dict[str, Place]:
    """On a circle, neighbours side by side: a ring is drawn as one."""
    order: dict[str, None] = {}
    for start in points:
        waiting = [start]
        while waiting:
            point = waiting.pop()
            if point not in order:
                order[point] = None
                waiting += sorted(near[point] - order.keys(), reverse=True)
    radius = max(len(order) / (2 * math.pi), 0.5)
    turn = 2 * math.pi / max(len(order), 1)
    return {
        point: (radius * math.cos(turn * place - math.pi * 0.75), radius * math.sin(turn * place - math.pi * 0.75))
        for place, point in enumerate(order)
    }


def _settled(at: dict[str, Place], near: Mapping[str, set[str]]) -> dict[str, Place]:
    """Move each point to where its distances from all others suit it best, again and again."""
    steps = {point: _steps(point, near) for point in at}
    far = APART + math.sqrt(len(at))
    for _round in range(ROUNDS if len(at) <= EXACT else ROUNDS // 6):
        moved = 0.0
        for point, (x, y) in at.items():
            sum_x = sum_y = weights = 0.0
            for other, (u, v) in at.items():
                if other == point:
                    continue
                wanted = steps[point].get(other, far)
                weight = 1 / wanted**2
                is_at = math.hypot(x - u, y - v) or 1e-6
                sum_x += weight * (u + wanted * (x - u) / is_at)
                sum_y += weight * (v + wanted * (y - v) / is_at)
                weights += weight
            if weights:
                at[point] = (sum_x / weights, sum_y / weights)
                moved = max(moved, math.hypot(at[point][0] - x, at[point][1] - y))
        if moved < ENOUGH:
            break
    return at


def _steps(start: str, near: Mapping[str, set[str]]) -> dict[str, int]:
    """How many lines are between a point and each that it reaches."""
    found, waiting = {start: 0}, deque([start])
    while waiting:
        point = waiting.popleft()
        for other in near[point]:
            if other not in found:
                found[other] = found[point] + 1
                waiting.append(other)
    return found


def _scale(places: Sequence[Place], room: Place) -> float:
    """Pixels for the length of one line, so that no two points need the same room."""
    width, height = room
    scale = max(width, height)
    for number, (x, y) in enumerate(places):
        for u, v in places[:number]:
            across, down = abs(x - u) or 1e-6, abs(y - v) or 1e-6
            scale = max(scale, min(width / across, height / down))
    return min(scale, 40 * max(room))
