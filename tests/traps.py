"""Rasters that point at an address, as a malicious or careless archive may hold them, and a server that is visited."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import rasterio

from tests.rasters import NORTH, WEST, ground, write_raster

SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
content, visits = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        with visits.open("a") as log:
            log.write(self.path + "\\n")
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
    do_HEAD = do_GET
    def log_message(self, *arguments):
        pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""
SIDE = 64
PLACE = f"<SRS>EPSG:32634</SRS><GeoTransform>{WEST}, 10, 0, {NORTH}, 0, -10</GeoTransform>"


@dataclass(frozen=True)
class Elsewhere:
    """A raster that no scene of a source folder may lead to.

    Attributes:
        url: Its address.
        visits: The file in which the server notes each request.
    """

    url: str
    visits: Path

    @property
    def count(self) -> int:
        """Requests until now."""
        return len(self.visits.read_text().splitlines())


@contextmanager
def elsewhere(folder: Path) -> Iterator[Elsewhere]:
    """A server of one raster. A process of its own: GDAL would hold back a thread of this one."""
    secret = write_raster(folder / "secret.tif", ground(SIDE, SIDE, ("B1",), seed=9))
    visits = folder / "visits"
    visits.touch()
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(secret), str(visits)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        yield Elsewhere(f"http://127.0.0.1:{int(server.stdout.readline())}", visits)
    finally:
        server.kill()
        server.communicate()


def vrt(source: str, mask: bool = False) -> str:
    """A virtual raster of one band."""
    flags = '<Metadata><MDI key="INTERNAL_MASK_FLAGS_1">2</MDI></Metadata>' if mask else PLACE
    return (
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}">{flags}'
        f'<VRTRasterBand dataType="{"Byte" if mask else "UInt16"}" band="1"><Description>B1</Description>'
        f'<SimpleSource><SourceFilename relativeToVRT="0">{source}</SourceFilename><SourceBand>1</SourceBand>'
        f'<SourceProperties RasterXSize="{SIDE}" RasterYSize="{SIDE}" DataType="UInt16" BlockXSize="64" '
        'BlockYSize="64"/></SimpleSource></VRTRasterBand></VRTDataset>'
    )


def wms(url: str) -> str:
    """The description of a web map service."""
    return (
        f'<GDAL_WMS><Service name="TMS"><ServerUrl>{url}/wms/${{z}}/${{x}}/${{y}}.tif</ServerUrl></Service>'
        f"<DataWindow><UpperLeftX>{WEST}</UpperLeftX><UpperLeftY>{NORTH}</UpperLeftY>"
        f"<LowerRightX>{WEST + 10 * SIDE}</LowerRightX><LowerRightY>{NORTH - 10 * SIDE}</LowerRightY>"
        f"<SizeX>{SIDE}</SizeX><SizeY>{SIDE}</SizeY><TileLevel>0</TileLevel></DataWindow>"
        f"<Projection>EPSG:32634</Projection><BlockSizeX>{SIDE}</BlockSizeX><BlockSizeY>{SIDE}</BlockSizeY>"
        "<BandsCount>1</BandsCount></GDAL_WMS>"
    )


def tile_index(folder: Path, url: str) -> str:
    """A GDAL tile index, and the table beside it that names the address."""
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "index.geojson"
    ring = [[WEST, NORTH], [WEST + 640, NORTH], [WEST + 640, NORTH - 640], [WEST, NORTH - 640], [WEST, NORTH]]
    table.write_text(
        json.dumps(
            {
                "type": "FeatureCollection",
                "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32634"}},
                "features": [
                    {
                        "type": "Feature",
                        "properties": {"location": f"/vsicurl/{url}/gti.tif"},
                        "geometry": {"type": "Polygon", "coordinates": [ring]},
                    }
                ],
            }
        )
    )
    return (
        f"<GDALTileIndexDataset><IndexDataset>{table}</IndexDataset><LocationField>location</LocationField>"
        '<ResX>10</ResX><ResY>10</ResY><BandCount>1</BandCount><Band band="1" dataType="UInt16"/>'
        "</GDALTileIndexDataset>"
    )


def named_inside(path: Path, key: str, target: str) -> Path:
    """A TIFF whose own metadata name another file."""
    write_raster(path, ground(SIDE, SIDE, ("B1",)))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(ns="OVERVIEWS", **{key: target})
    return path


def with_beside(path: Path, ending: str, text: str) -> Path:
    """A TIFF with a text file beside it."""
    write_raster(path, ground(SIDE, SIDE, ("B1",)))
    Path(f"{path}{ending}").write_text(text)
    return path


def zipped(path: Path, url: str) -> str:
    """A TIFF in an archive, with a mask beside it that is a virtual raster; as GDAL names it."""
    plain = with_beside(path, ".msk", vrt(f"/vsicurl/{url}/zip.tif", mask=True))
    archive = path.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as target:
        for name in (plain.name, f"{plain.name}.msk"):
            target.write(plain.with_name(name), name)
            plain.with_name(name).unlink()
    return f"/vsizip/{archive}/{plain.name}"


def text_file(path: Path, text: str) -> Path:
    """A file that is no raster itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# Each makes a raster in a folder that leads to an address; by what it is.
TRAPS: dict[str, Callable[[Path, str], Path | str]] = {
    "a VRT": lambda folder, url: text_file(folder / "a.vrt", vrt(f"/vsicurl/{url}/vrt.tif")),
    "a VRT called .tif": lambda folder, url: text_file(folder / "a.tif", vrt(f"/vsicurl/{url}/tif.tif")),
    "a VRT called .jp2": lambda folder, url: text_file(folder / "a.jp2", vrt(f"/vsicurl/{url}/jp2.tif")),
    "a web map service": lambda folder, url: text_file(folder / "a.xml", wms(url)),
    "a web map service called .tif": lambda folder, url: text_file(folder / "a.tif", wms(url)),
    "a tile index": lambda folder, url: text_file(folder / "a.gti", tile_index(folder, url)),
    "a tile index called .tif": lambda folder, url: text_file(folder / "a.tif", tile_index(folder, url)),
    "a mask beside it": lambda folder, url: with_beside(
        folder / "a.tif", ".msk", vrt(f"/vsicurl/{url}/msk.tif", mask=True)
    ),
    "a mask beside it in capitals": lambda folder, url: with_beside(
        folder / "a.tif", ".MSK", vrt(f"/vsicurl/{url}/msk.tif", mask=True)
    ),
    "a pyramid beside it": lambda folder, url: with_beside(folder / "a.tif", ".ovr", vrt(f"/vsicurl/{url}/ovr.tif")),
    "a pyramid named beside it": lambda folder, url: with_beside(
        folder / "a.tif",
        ".aux.xml",
        f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">/vsicurl/{url}/aux.tif</MDI></Metadata>'
        "</PAMDataset>",
    ),
    "a pyramid named inside": lambda folder, url: named_inside(
        folder / "a.tif", "OVERVIEW_FILE", f"/vsicurl/{url}/inside.tif"
    ),
    "a mask beside it in an archive": lambda folder, url: zipped(folder / "a.tif", url),
}
