"""The landscapes: a plain with a river, wooded hills with a lake, a coast with a town."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from imagery.simulate.landscape import FINE, Canvas, Landscape, curve, meander, rotated, split
from imagery.simulate.noise import FloatArray, smoothstep, stream
from imagery.simulate.plan import Location
from imagery.simulate.seasons import codes

CROP_SHARES = {
    "wheat": 0.27,
    "maize": 0.23,
    "barley": 0.10,
    "rapeseed": 0.09,
    "sunflower": 0.11,
    "sugar beet": 0.07,
    "meadow": 0.13,
}


def fields(canvas: Canvas, where: np.ndarray, sectors: int, largest: float, shares: dict[str, float]) -> FloatArray:
    """Cover cells with parcels of crops, the way they lie in blocks between tracks.

    Returns:
        Direction (radians) in which each cell's field is worked.
    """
    rng, cells = canvas.rng, canvas.cells
    seeds = rng.uniform(-0.1, 1.1, (sectors, 2)) * cells
    warp = 0.03 * cells
    rows, columns = canvas.rows + warp * canvas.noise(cells, 2.6), canvas.columns + warp * canvas.noise(cells, 2.6)
    apart = np.stack([(rows - r) ** 2 + (columns - c) ** 2 for r, c in seeds])
    sector = apart.argmin(axis=0)
    labels = np.zeros(canvas.shape, dtype=np.int32)
    direction = np.zeros(canvas.shape, dtype=np.float32)
    count, main = 0, rng.uniform(0, np.pi)
    for index in range(sectors):
        angle = main + rng.normal(0, 0.35)
        along, across = rotated(canvas, angle)
        side = int(1.5 * cells)
        plots = split(rng, side, largest * rng.uniform(0.7, 1.3), 0.25 * largest)
        stretch = rng.uniform(1.0, 1.7)  # fields are longer than wide
        u = np.clip(along / stretch + side / 2, 0, side - 1).astype(int)
        v = np.clip(across + side / 2, 0, side - 1).astype(int)
        mine = sector == index
        labels[mine] = count + plots[v, u][mine]
        direction[mine] = angle
        count += int(plots.max()) + 1
    crops = rng.choice(codes(*shares), size=count, p=np.array(list(shares.values())) / sum(shares.values()))
    canvas.paint_pieces(where, labels, crops)
    margin = _edges(labels) & (canvas.noise(30, 1.0) > -0.3)
    canvas.paint(where & margin, "meadow")
    track = ndimage.binary_dilation(_edges(sector))
    canvas.paint(where & track, "gravel")
    hedge = ndimage.binary_dilation(_edges(sector), iterations=3) & ~track & (canvas.noise(40, 1.3) > 0.9)
    canvas.paint(where & hedge, "deciduous")
    return direction


def _edges(labels: np.ndarray) -> np.ndarray:
    edge = np.zeros(labels.shape, dtype=bool)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    return edge


def woods(canvas: Canvas, where: np.ndarray, conifers: float, stand: float) -> None:
    """Cover cells with forest stands; `conifers` is the share of needle trees, `stand` the size of a stand in cells."""
    rng = canvas.rng
    along, across = rotated(canvas, rng.uniform(0, np.pi))
    warp = 0.35 * stand
    side = int(1.6 * canvas.cells)
    plots = split(rng, side, stand, 0.3 * stand)
    u = np.clip(along + warp * canvas.noise(2 * stand, 1.9) + side / 2, 0, side - 1).astype(int)
    v = np.clip(across + warp * canvas.noise(2 * stand, 1.9) + side / 2, 0, side - 1).astype(int)
    labels = plots[v, u]
    count = int(labels.max()) + 1
    drawn = np.maximum(np.bincount(labels.ravel(), minlength=count), 1)
    total = np.bincount(labels.ravel(), weights=canvas.noise(canvas.cells / 3, 2.2).ravel(), minlength=count)
    tendency = total / drawn + rng.normal(0, 0.5, count)
    needles = tendency > np.quantile(tendency, 1 - conifers)
    covers = np.where(needles, codes("conifer")[0], codes("deciduous")[0])
    mixed = canvas.noise(12, 1.2) > 1.35  # groups of the other kind within a stand
    canvas.paint_pieces(where, labels, covers)
    canvas.paint_pieces(where & mixed, labels, np.where(needles, codes("deciduous")[0], codes("conifer")[0]))


def town(canvas: Canvas, centre: tuple[float, float], radius: float, allowed: np.ndarray) -> None:
    """Build a town: streets, blocks, lots with a house and a garden each, denser towards the centre."""
    rng = canvas.rng
    angle = rng.uniform(0, np.pi)
    rows = canvas.rows + 3.0 * canvas.noise(120, 2.4)
    columns = canvas.columns + 3.0 * canvas.noise(120, 2.4)
    dy, dx = rows - centre[0], columns - centre[1]
    u = np.cos(angle) * dx + np.sin(angle) * dy + 4096
    v = -np.sin(angle) * dx + np.cos(angle) * dy + 4096
    away = np.hypot(dx, dy) / radius + 0.22 * canvas.noise(radius, 1.8)
    inside = allowed & (away < 1)

    long, wide = 28, 17
    block = _numbered(u // long, v // wide)
    in_u, in_v = u % long, v % wide
    street = (in_u < 1.6) | (in_v < 1.6)
    lot = _numbered(u // long, v // wide, (in_u - 1.6) // 4.4, (in_v - 1.6) // 7.7)
    house_u, house_v = (in_u - 1.6) % 4.4, (in_v - 1.6) % 7.7
    dense = np.clip(1.15 - away, 0, 1)
    house = (house_u < 2.3 + 1.6 * dense) & (house_v > 1.2 - dense) & (house_v < 4.2 + 3.0 * dense)
    empty = rng.random(lot.max() + 1)[lot] > 0.62 + 0.45 * dense

    lots = int(lot.max()) + 1
    canvas.paint_pieces(inside, lot, np.full(lots, codes("meadow")[0]))
    trees = rng.random(lots)[lot] < 0.3
    canvas.paint(inside & trees & (canvas.noise(6, 1.0) > 0.2), "deciduous")
    roofs = rng.choice(codes("tile roof", "grey roof", "bright roof"), size=lots, p=(0.66, 0.29, 0.05))
    canvas.paint_pieces(inside & house & ~empty, lot, roofs)

    blocks = int(block.max()) + 1
    use = rng.random(blocks)[block]
    park = use < 0.07
    halls = (use > 0.90) & (away > 0.45)
    canvas.paint(inside & park, "meadow")
    canvas.paint(inside & park & (canvas.noise(8, 1.2) > 0.2), "deciduous")
    canvas.paint(inside & halls, "asphalt")
    hall_roofs = rng.choice(codes("grey roof", "bright roof", "concrete"), size=blocks, p=(0.5, 0.25, 0.25))
    canvas.paint_pieces(inside & halls & (in_u > 5) & (in_u < 24) & (in_v > 4) & (in_v < 14), block, hall_roofs)
    canvas.paint(inside & street, "asphalt")


def _numbered(*parts: np.ndarray) -> np.ndarray:
    """One number from 0 for every different combination."""
    joined = np.zeros(parts[0].shape, dtype=np.int64)
    for part in parts:
        joined = joined * 1024 + (part.astype(np.int64) - int(part.min()))
    return np.unique(joined, return_inverse=True)[1].reshape(joined.shape).astype(np.int32)


def road(canvas: Canvas, points: np.ndarray, width: float, cover: str = "asphalt") -> None:
    """Draw a road of a width in cells along a line."""
    canvas.paint(canvas.distance(points) < width / 2 + 0.4, cover)


def river_plain(canvas: Canvas) -> Landscape:
    """Large fields, a meandering river with woods along it, a small town, a few groves."""
    rng, cells = canvas.rng, canvas.cells
    everywhere = np.ones(canvas.shape, dtype=bool)
    direction = fields(canvas, everywhere, sectors=9, largest=0.17 * cells, shares=CROP_SHARES)
    groves = canvas.noise(cells / 3, 2.4) > 1.75
    woods(canvas, groves, conifers=0.2, stand=50)
    channel = canvas.distance(meander(rng, cells, swing=1.25, wavelength=0.95 * cells))
    centre = (cells * rng.uniform(0.16, 0.26), cells * rng.uniform(0.2, 0.8))
    town(canvas, centre, 0.15 * cells, channel > 24)
    road(canvas, curve(rng, (centre[0] * rng.uniform(0.5, 1.5), 0), centre, 30), 2.2)
    road(canvas, curve(rng, centre, (cells * rng.uniform(0.1, 0.4), cells - 1), 30), 2.2)
    road(canvas, curve(rng, centre, (cells - 1, cells * rng.uniform(0.3, 0.7)), 40), 1.6)
    width = 8 + 1.2 * canvas.noise(60, 2.0)
    forest = (channel < 20 + 9 * canvas.noise(60, 1.6)) & ~canvas.is_cover("tile roof", "grey roof", "asphalt")
    woods(canvas, forest, conifers=0.0, stand=40)
    canvas.paint(channel < 12 + 2 * canvas.noise(20, 1.5), "meadow")
    canvas.paint(channel < width + 1.2 + 2.2 * (canvas.noise(50, 2.0) > 1.2), "gravel")
    canvas.paint(channel < width, "river")
    # the plain rises gently away from the river, with hollows
    floodplain = channel / (0.12 * cells) + 0.35 * canvas.noise(cells / 4, 2.2)
    sediment = 1 + 0.10 * canvas.noise(80, 2.0)
    landscape = canvas.finish(sediment=sediment.astype(np.float32), floodplain=floodplain.astype(np.float32))
    rows = np.sin(direction) * canvas.columns - np.cos(direction) * canvas.rows
    worked = landscape.covered_by(*(name for name in CROP_SHARES if name != "meadow"))
    landscape.texture[worked] *= (1 + 0.025 * np.sin(rows * (2 * np.pi / 4.6)))[worked]  # tramlines
    return landscape


def forest_hills(canvas: Canvas) -> Landscape:
    """Hills under mixed forest, a reservoir, meadows and small fields in the valleys, a village, forest roads."""
    rng, cells = canvas.rng, canvas.cells
    height = 0.75 * canvas.noise(cells / 1.6, 2.6) - 0.75 * abs(canvas.noise(cells / 4, 2.3))  # ridges
    everywhere = np.ones(canvas.shape, dtype=bool)
    woods(canvas, everywhere, conifers=0.52, stand=0.11 * cells)
    clearing = canvas.noise(0.1 * cells, 2.0) + 0.3 * canvas.noise(10, 1.2) > 1.75
    canvas.paint(clearing, "heath")
    valley = height + 0.12 * canvas.noise(50, 1.5) < np.quantile(height, 0.24)
    shares = {"meadow": 0.55, "wheat": 0.15, "barley": 0.08, "maize": 0.14, "rapeseed": 0.08}
    fields(canvas, valley, sectors=6, largest=0.11 * cells, shares=shares)
    for _ in range(4):  # forest roads run from side to side
        first, second = rng.uniform(0.1 * cells, 0.9 * cells, 2)
        points = curve(rng, (0.0, first), (cells - 1.0, second), 0.15 * cells)
        road(canvas, points if rng.random() < 0.5 else points[:, ::-1], 0.5, "gravel")
    deepest = np.unravel_index(int(ndimage.gaussian_filter(height, 0.03 * cells).argmin()), canvas.shape)
    away = np.hypot(canvas.rows - deepest[0], canvas.columns - deepest[1]) / cells
    flood_level = height + 4.0 * away
    pools, _ = ndimage.label(flood_level < np.quantile(flood_level, 0.05))
    lake = ndimage.binary_fill_holes(pools == np.bincount(pools[pools > 0]).argmax())
    open_ground = ndimage.gaussian_filter((valley & ~lake).astype(np.float32), 0.04 * cells)
    half = cells / 2
    inside = half - np.maximum(abs(canvas.rows - half), abs(canvas.columns - half))
    open_ground *= (away > 0.16) * smoothstep(inside, 20, 60)
    village = np.unravel_index(int(open_ground.argmax()), canvas.shape)
    town(canvas, (float(village[0]), float(village[1])), 0.075 * cells, ~lake)
    for end in ((0.0, cells * rng.uniform(0.2, 0.8)), (cells - 1.0, cells * rng.uniform(0.2, 0.8))):
        road(canvas, curve(rng, (float(village[0]), float(village[1])), end, 0.12 * cells), 1.4)
    canvas.paint(ndimage.binary_dilation(lake, iterations=2), "gravel")
    canvas.paint(lake, "lake")
    floor = np.quantile(height, 0.24)
    smooth = ndimage.gaussian_filter(np.where(height < floor, floor + 0.3 * (height - floor), height), 3.5)
    smooth[ndimage.binary_dilation(lake, iterations=3)] = smooth[lake].mean()
    sediment = 1 + 0.06 * canvas.noise(60, 2.0)
    return canvas.finish(height=(48 * smooth).astype(np.float32), sediment=sediment.astype(np.float32))


def sea_coast(canvas: Canvas) -> Landscape:
    """Open sea with a beach, a harbour town, fields and pine woods behind it."""
    rng, cells = canvas.rng, canvas.cells
    everywhere = np.ones(canvas.shape, dtype=bool)
    fields(canvas, everywhere, sectors=10, largest=0.12 * cells, shares=CROP_SHARES)
    shore = 0.50 * cells + 0.13 * cells * np.sin(canvas.rows * (1.2 * np.pi / cells) + rng.uniform(0, 6.28))
    shore = shore + 5.0 * canvas.noise(0.4 * cells, 2.6) + 0.8 * canvas.noise(12, 1.5)
    inland = canvas.columns - shore  # cells to the east of the shore, roughly
    sea = inland < 0
    depth = ndimage.distance_transform_edt(sea).astype(np.float32)
    dry = ndimage.distance_transform_edt(~sea).astype(np.float32)
    dunes = dry < 26 + 9 * canvas.noise(80, 1.8)
    canvas.paint(dunes, "heath")
    pines = (dry < 62 + 28 * canvas.noise(120, 2.0)) & ~dunes
    woods(canvas, pines, conifers=0.9, stand=60)
    row = cells * rng.uniform(0.52, 0.72)
    column = float(np.argmax(inland[int(row)] > 0)) + 0.15 * cells
    town(canvas, (row, column), 0.19 * cells, dry > 7)
    road(canvas, curve(rng, (row, column), (cells * rng.uniform(0.3, 0.7), cells - 1.0), 40), 2.2)
    road(canvas, curve(rng, (row, column), (0.0, cells * rng.uniform(0.75, 0.9)), 40), 1.6)
    road(canvas, curve(rng, (row, column), (cells - 1.0, cells * rng.uniform(0.75, 0.9)), 40), 1.6)
    canvas.paint(dry < 5.5 + 2.5 * canvas.noise(90, 2.0), "beach")
    canvas.paint(sea, "sea")
    edge = float(np.argmax(inland[int(row)] > 0))
    basin = (abs(canvas.rows - row) < 16) & (canvas.columns > edge - 30) & (canvas.columns < edge + 24)
    quay = (abs(canvas.rows - row) < 21) & (canvas.columns > edge - 34) & (canvas.columns < edge + 30)
    mouth = (abs(canvas.rows - row + 6) < 5) & (canvas.columns <= edge - 28)
    canvas.paint(quay & ~basin & ~mouth, "concrete")
    canvas.paint(basin, "sea")
    jetties = basin & (canvas.columns > edge) & (canvas.rows.astype(int) % 8 < 1) & (canvas.columns < edge + 20)
    canvas.paint(jetties, "concrete")
    plume = np.exp(-depth / (14 + 4 * np.clip(canvas.noise(100, 2.0), -1.5, 1.5)))
    sediment = 1 + 0.9 * plume + 0.06 * canvas.noise(120, 2.0)
    return canvas.finish(sediment=sediment.astype(np.float32))


RECIPES: dict[str, Callable[[Canvas], Landscape]] = {
    "river": river_plain,
    "forest": forest_hills,
    "coast": sea_coast,
}


def lay_out(location: Location, seed: int) -> Landscape:
    """The landscape of a location, always the same for the same seed."""
    canvas = Canvas(stream(seed, "landscape", location.name, location.recipe), FINE * location.size)
    return RECIPES[location.recipe](canvas)
