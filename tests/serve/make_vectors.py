"""docs/preprocessing.md word by word in plain Python: vectors that both real ones must match.

`python tests/serve/make_vectors.py` writes vectors.json anew, after the specification has changed.
"""

import base64
import json
import math
import random
from pathlib import Path

HERE = Path(__file__).parent
STROKES = json.loads((HERE / "strokes.json").read_text())


def ink_of_strokes(strokes):
    ink = [[0] * 280 for _ in range(280)]
    for stroke in strokes:
        for a, b in zip([stroke[0], *stroke[:-1]], stroke, strict=True):
            for row in near(a[1], b[1]):
                for column in near(a[0], b[0]):
                    new = level((column + 0.5, row + 0.5), a, b)
                    ink[row][column] = max(ink[row][column], new)
    return ink


def near(a, b):
    """Returns the pixels along one axis that a pen from a to b can reach, and a few more."""
    return range(max(0, min(a, b) - 14), min(280, max(a, b) + 14))


def level(p, a, b):
    vx, vy = b[0] - a[0], b[1] - a[1]
    square = vx * vx + vy * vy
    t = min(1, max(0, ((p[0] - a[0]) * vx + (p[1] - a[1]) * vy) / square)) if square else 0
    dx, dy = p[0] - (a[0] + t * vx), p[1] - (a[1] + t * vy)
    return math.floor(255 * min(1, max(0, 11.5 - math.sqrt(dx * dx + dy * dy))) + 0.5)


def ink_of_picture(pixels):
    """`pixels`: rows of (red, green, blue, alpha)."""
    k = (max(len(pixels), len(pixels[0])) + 399) // 400
    height, width = len(pixels) // k, len(pixels[0]) // k
    grey = [
        [block_level(pixels, row, column, k) for column in range(width)] for row in range(height)
    ]
    edges = (0, height - 1), (0, width - 1)
    ring = sorted(
        grey[row][column]
        for row in range(height)
        for column in range(width)
        if row in edges[0] or column in edges[1]
    )
    n = len(ring)
    lower, upper = ring[n // 10], ring[n - 1 - n // 10]
    levels = [level for line in grey for level in line]
    dark_on_light = lower - min(levels) > max(levels) - upper
    ink = [
        [max(0, lower - level) if dark_on_light else max(0, level - upper) for level in line]
        for line in grey
    ]
    strongest = max(map(max, ink))
    return [[0 if 8 * level < strongest else level for level in line] for line in ink]


def block_level(pixels, row, column, k):
    total = 0
    for y in range(row * k, row * k + k):
        for x in range(column * k, column * k + k):
            red, green, blue, alpha = pixels[y][x]
            total += (299 * red + 587 * green + 114 * blue) * alpha + 255_000 * (255 - alpha)
    return total // (255_000 * k * k)


def image(ink):
    """Returns 28 rows of levels, or None where there is no ink."""
    if max(map(max, ink)) < 32:
        return None
    rows = [row for row, line in enumerate(ink) if any(line)]
    columns = [column for column in range(len(ink[0])) if any(line[column] for line in ink)]
    box = [line[columns[0] : columns[-1] + 1] for line in ink[rows[0] : rows[-1] + 1]]
    h, w = len(box), len(box[0])
    longer = max(h, w)
    height, width = (max(1, (40 * side + longer) // (2 * longer)) for side in (h, w))
    sums = [
        [
            sum(
                share(i, y, h, height) * share(j, x, w, width) * box[i][j]
                for i in range(y * h // height, min(h, (y + 1) * h // height + 1))
                for j in range(x * w // width, min(w, (x + 1) * w // width + 1))
            )
            for x in range(width)
        ]
        for y in range(height)
    ]
    s = max(map(max, sums))
    fitted = [[(510 * value + s) // (2 * s) for value in line] for line in sums]
    top = offset([sum(line) for line in fitted])
    left = offset([sum(line[x] for line in fitted) for x in range(width)])
    out = [[0] * 28 for _ in range(28)]
    for y, line in enumerate(fitted):
        out[top + y][left : left + width] = line
    return out


def share(i, j, n, m):
    return max(0, min((i + 1) * m, (j + 1) * n) - max(i * m, j * n))


def offset(levels):
    mass, moment = sum(levels), sum(index * level for index, level in enumerate(levels))
    return min(max(0, -((2 * moment - 27 * mass) // (2 * mass))), 28 - len(levels))


def pictures():
    """Yields a name, rows of RGBA and how often each pixel is repeated along both axes."""
    noise = random.Random(5)

    def speckled(row, column):
        is_ink = (row - 20) ** 2 + (column - 13) ** 2 < 90 or (18 <= column <= 21 and 12 < row < 37)
        grey = (60 if is_ink else 180) + noise.randrange(12) - column // 2
        return (grey + 9, grey, max(0, grey - 20), 255)

    def is_cross(x, y):
        return (x > 4 and y == 5) or (x == 7 and 2 < y < 9)

    photograph = [[speckled(row, column) for column in range(30)] for row in range(40)]
    yield "dark on shaded, speckled paper", photograph, 1
    yield "the same, so large that blocks of 3 are averaged", photograph, 21
    yield (
        "green on dark, on the right edge",
        [[(20, 200 if is_cross(x, y) else 25, 40, 255) for x in range(12)] for y in range(11)],
        1,
    )
    yield (
        "half transparent black on nothing",
        [
            [(0, 0, 0, 130 * (3 < x < 9 + y % 3 and 2 < y < 30)) for x in range(15)]
            for y in range(33)
        ],
        1,
    )
    yield (
        "one pixel",
        [[(255,) * 4 if x == y == 2 else (0, 0, 0, 255) for x in range(5)] for y in range(6)],
        1,
    )
    yield (
        "a line two pixels high",
        [
            [(250, 250, 250, 255)] * 40,
            [(0, 0, 0, 255)] * 40,
            [(9, 9, 9, 255)] * 40,
            [(240, 250, 250, 255)] * 40,
        ],
        1,
    )
    yield "white paper", [[(255,) * 4] * 12] * 9, 1
    yield (
        "too faint",
        [[(200 - 31 * (3 < x < 6 < y < 9),) * 3 + (255,) for x in range(12)] for y in range(12)],
        1,
    )


def repeated(pixels, times):
    return [[pixel for pixel in row for _ in range(times)] for row in pixels for _ in range(times)]


def packed(rows):
    return base64.b64encode(bytes(value for row in rows for value in row)).decode()


def vectors():
    """Returns the inputs and the images they must give; null where the input must be refused."""
    found = {
        "strokes": {
            digit: packed(image(ink_of_strokes(strokes))) for digit, strokes in STROKES.items()
        },
        "pictures": [],
    }
    for name, pixels, times in pictures():
        result = image(ink_of_picture(repeated(pixels, times)))
        found["pictures"].append(
            {
                "name": name,
                "height": len(pixels),
                "width": len(pixels[0]),
                "repeat": times,
                "rgba": packed([[value for pixel in row for value in pixel] for row in pixels]),
                "image": result and packed(result),
            }
        )
    return found


if __name__ == "__main__":
    (HERE / "vectors.json").write_text(json.dumps(vectors(), indent=1) + "\n")
