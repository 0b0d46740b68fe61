"""docs/preprocessing.md word by word in plain Python: vectors that both real ones must match.

`python tests/serve/make_vectors.py` writes vectors.json again, after the specification has changed.
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
    grey = grey_of_picture(pixels)
    h, w = len(grey), len(grey[0])
    depth = (min(h, w) + 9) // 10
    places = [(row, column) for row in range(h) for column in range(w)]
    margin = {
        place: min(place[0], place[1], h - 1 - place[0], w - 1 - place[1]) for place in places
    }
    inside = [place for place in places if margin[place] >= depth]
    edge = [place for place in places if margin[place] < depth]
    levels = {place: grey[place[0]][place[1]] for place in places}
    seen = [levels[place] for place in inside]
    if not seen or max(seen) - min(seen) < 32:
        inside = edge = places
    if not is_dark_on_light(levels, inside, margin, depth):
        levels = {place: 255 - level for place, level in levels.items()}
    seen = sorted(levels[place] for place in inside)
    light = [level for level in seen if 2 * level >= seen[0] + seen[-1]]
    paper = light[len(light) // 2]
    beside = sorted(
        levels[place] for place in edge if 3 * (levels[place] - seen[0]) > paper - seen[0]
    )
    paper = beside[len(beside) // 20] if beside else paper
    ink = {place: max(0, paper - level) for place, level in levels.items()}
    ink = {place: level for place, level in ink.items() if level and 8 * level >= paper - seen[0]}
    for place in frame(ink, h, w, depth):
        del ink[place]
    strongest = max(ink.values(), default=0)
    ink = {place: level for place, level in ink.items() if 8 * level >= strongest}
    return [[ink.get((row, column), 0) for column in range(w)] for row in range(h)]


def is_dark_on_light(levels, inside, margin, depth):
    seen = [levels[place] for place in inside]
    middle = min(seen) + max(seen)
    light = [level for level in seen if 2 * level >= middle]
    for distance in reversed(range(depth)):
        ring = [level for place, level in levels.items() if margin[place] == distance]
        share = sum(2 * level >= middle for level in ring)
        if ring and 10 * share >= 9 * len(ring) and 3 * len(light) >= len(seen):
            return True
        if ring and 10 * share <= len(ring) and 3 * len(light) <= 2 * len(seen):
            return False
    return 2 * len(light) > len(seen)


def frame(ink, h, w, depth):
    """Returns the places of lines and frames at the edge."""
    rows = [[(row, column) for column in range(w)] for row in range(h)]
    columns = [list(column) for column in zip(*rows, strict=True)]
    left = set(ink)
    for lines in (rows, rows[::-1], columns, columns[::-1]):
        full = []
        for line in lines:
            if 10 * sum(place in left for place in line) < 9 * len(line):
                break
            full += [line]
        if len(full) <= depth:
            left -= {place for line in full for place in line}
    parts = parts_of(left)

    def inner(part):
        return sum(depth <= y < h - depth and depth <= x < w - depth for y, x in part)

    largest = max(parts, key=inner, default=None)
    for part in parts:
        if 2 * len(part) < min(h, w) or (inner(part) and part is largest):
            continue
        tall, wide = (max(ends) - min(ends) + 1 for ends in zip(*part, strict=True))
        is_long = 2 * tall >= h or 2 * wide >= w
        is_along = any(
            2 * sum(place in part for place in line) >= len(line)
            for line in (rows[0], rows[-1], columns[0], columns[-1])
        )
        if is_along or (is_long and not inner(part)):
            left -= part
    return set(ink) - left


def parts_of(places):
    """Returns sets of places that touch, sides or corners, by the first place of each."""
    parts, left = [], set(places)
    for start in sorted(places):
        if start in left:
            part, new = set(), {start}
            while new:
                part |= new
                near = {(y + i, x + j) for y, x in new for i in (-1, 0, 1) for j in (-1, 0, 1)}
                new = (near & left) - part
            parts.append(part)
            left -= part
    return parts


def holds_several(ink):
    return is_parted(ink, 3, 5) or is_parted(
        [list(column) for column in zip(*ink, strict=True)], 2, 3
    )


def is_parted(ink, part, whole):
    columns = list(zip(*ink, strict=True))
    inked = [x for x, column in enumerate(columns) if any(column)]

    def height(lines):
        rows = [y for line in lines for y, level in enumerate(line) if level]
        return max(rows) - min(rows) + 1

    return any(
        whole * min(height(columns[:x]), height(columns[x:])) >= part * height(columns)
        for x in range(1, len(columns))
        if inked and inked[0] < x < inked[-1] and x not in inked
    )


def grey_of_picture(pixels):
    k = (max(len(pixels), len(pixels[0])) + 399) // 400
    height, width = len(pixels) // k, len(pixels[0]) // k
    sums = {
        (row, column): block_sums(pixels, row, column, k)
        for row in range(height)
        for column in range(width)
    }
    opaque = 255 * k * k
    most = max(alpha for alpha, _ in sums.values())
    seen = [place for place, (alpha, _) in sums.items() if alpha and 2 * alpha >= most]
    if not seen:
        return [[255] * width for _ in range(height)]
    rows, columns = (range(min(ends), max(ends) + 1) for ends in zip(*seen, strict=True))
    tones = [sums[place][1] // (1000 * sums[place][0]) for place in seen]
    is_open = 4 * len(seen) <= 3 * len(rows) * len(columns)
    if is_open or (max(tones) - min(tones) < 32 and len(seen) < len(sums)):
        return [
            [(opaque - sums[row, column][0]) * 255 // opaque for column in range(width)]
            for row in range(height)
        ]
    behind = sum(tones) // len(tones)
    return [[over(sums[row, column], behind, opaque) for column in columns] for row in rows]


def over(sums, behind, opaque):
    alpha, color = sums
    return (color + 1000 * behind * (opaque - alpha)) // (1000 * opaque)


def block_sums(pixels, row, column, k):
    alphas = colors = 0
    for y in range(row * k, row * k + k):
        for x in range(column * k, column * k + k):
            red, green, blue, alpha = pixels[y][x]
            alphas += alpha
            colors += (299 * red + 587 * green + 114 * blue) * alpha
    return alphas, colors


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


def surrounded():
    """Yields a 7 as `pictures` does: with frames and lines, on transparent, beside another."""
    paper, black, white = (215, 210, 200, 255), (20, 20, 25, 255), (255,) * 4
    nothing, yellow = (0, 0, 0, 0), (255, 240, 90, 255)

    def seven(ink, paper, width=30, height=32):
        def is_ink(x, y):
            return (y in (7, 8, 9) and 7 < x < 23) or (8 < y < 26 and 21 <= x + y // 3 <= 25)

        return [[ink if is_ink(x, y) else paper for x in range(width)] for y in range(height)]

    def framed(pixels, edge, top, right, bottom, left):
        height, width = len(pixels), len(pixels[0])
        return [
            [
                edge
                if y < top or y >= height - bottom or x < left or x >= width - right
                else pixels[y][x]
                for x in range(width)
            ]
            for y in range(height)
        ]

    dark, light = seven(black, paper), seven(paper, black)
    yield "in a frame of one pixel", framed(dark, (0, 0, 0, 255), 1, 1, 1, 1), 1
    yield "light on dark in a light frame", framed(light, white, 2, 2, 2, 2), 5
    yield (
        "light on dark in a frame of a seventh grey",
        framed(light, (36,) * 3 + (255,), 1, 2, 1, 2),
        1,
    )
    yield (
        "on grey in a white frame",
        framed(seven(black, (150, 150, 150, 255)), white, 1, 1, 1, 1),
        1,
    )
    for side in range(4):
        sides = [2 * (side == i) for i in range(4)]
        name = ("top", "right", "bottom", "left")[side]
        yield (
            f"a line along the {name} edge",
            framed(dark, black, sides[0], sides[1], sides[2], sides[3]),
            1,
        )
    inset = [row[:] for row in dark]
    for x in range(2, 22):
        inset[1][x] = inset[2][x] = black
    yield "a line near the edge, of two thirds of the side", inset, 1
    wedge = [[black if 3 * x + y < 22 else dark[y][x] for x in range(30)] for y in range(32)]
    yield "a dark wedge along the left edge", wedge, 1
    yield "cropped to the ink", [row[8:23] for row in dark[7:26]], 1
    yield "a frame and nothing in it", framed([[paper] * 30] * 30, black, 1, 1, 1, 1), 1
    yield "white on transparent", seven((255,) * 4, nothing), 1
    yield (
        "yellow on transparent, so large that blocks of 2 are averaged",
        seven(yellow, nothing),
        14,
    )
    yield "faint white on transparent", seven((255, 255, 255, 70), (255, 255, 255, 0)), 1
    yield (
        "dark on a light card with transparent corners",
        [
            [nothing if x + y < 5 or x + y > 55 else dark[y][x] for x in range(30)]
            for y in range(32)
        ],
        1,
    )
    yield (
        "light on a dark card, transparent around",
        [
            [light[y - 6][x - 6] if 5 < y < 38 and 5 < x < 36 else nothing for x in range(44)]
            for y in range(46)
        ],
        1,
    )
    yield "wholly transparent", [[nothing] * 9] * 9, 1
    both = [left + right for left, right in zip(dark, dark, strict=True)]
    yield "two side by side", both, 1
    yield "one above another", dark + dark, 1


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
    for name, pixels, times in (*pictures(), *surrounded()):
        ink = ink_of_picture(repeated(pixels, times))
        result = image(ink)
        found["pictures"].append(
            {
                "name": name,
                "height": len(pixels),
                "width": len(pixels[0]),
                "repeat": times,
                "rgba": packed([[value for pixel in row for value in pixel] for row in pixels]),
                "image": result and packed(result),
                "several": holds_several(ink),
            }
        )
    return found


if __name__ == "__main__":
    (HERE / "vectors.json").write_text(json.dumps(vectors(), indent=1) + "\n")
