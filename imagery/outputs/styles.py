"""QGIS styles: a `.qml` beside a file, with the same base name, is applied as QGIS opens the file."""

from __future__ import annotations

import math
from pathlib import Path
from xml.sax.saxutils import quoteattr

from configs.workspace import write_text

# matplotlib's inferno from 0.3 to 0.55 and from 0.65 to 0.9: ordered in lightness, also for colour-blind eyes, and with
# a step between what is not flagged and what is.
BELOW = ("#6a176e", "#942667", "#cc4248")
ABOVE = ("#ea632a", "#fca50a", "#f6d746")
OPAQUE, FAINT = 255, 80
LINE, CASING = "34,211,238,255", "20,20,20,255"  # cyan on near-black: seen on any ground, and on the heatmap's colours
QUIET = "235,235,235,255"
FLAG_LABEL = 'format_number("score", 2)'  # expressions of QGIS
AREA_LABEL = """"tiles" || if("tiles" = 1, ' tile, ', ' tiles, ') || format_number("max_score", 2)"""

Stop = tuple[float, str, int, str]  # value, colour, opacity (0 to 255), label


def heatmap_stops(usual: float, threshold: float) -> list[Stop]:
    """The colours of a heatmap: nothing up to what is usual, faint below the threshold, bright above it.

    The brightest colour lies as far again above the threshold as twice the way from what is usual to it.

    Args:
        usual: What a normal tile scores, in units of the heatmap.
        threshold: A tile that scores more is flagged; one that is hardly greater than `usual` spreads the scale.
    """
    usual, threshold = float(usual), float(threshold)  # numpy's numbers are not spelled as numbers
    way = max(threshold - usual, 1e-3 * max(abs(threshold), 1.0))
    start, end = threshold - way, threshold + 2 * way
    just_above = math.nextafter(threshold, math.inf)
    return [
        (start, BELOW[0], 0, f"usual: {start:.3g} and less"),
        (start + 0.01 * way, BELOW[0], FAINT, ""),
        (threshold - way / 2, BELOW[1], (OPAQUE + FAINT) // 2, f"{threshold - way / 2:.3g}"),
        (threshold, BELOW[2], OPAQUE, f"threshold: {threshold:.3g}"),
        (just_above, ABOVE[0], OPAQUE, "flagged above it"),
        (threshold + way, ABOVE[1], OPAQUE, f"{threshold + way:.3g}"),
        (end, ABOVE[2], OPAQUE, f"{end:.3g} and more"),
    ]


def write_heatmap_style(path: Path, usual: float, threshold: float) -> None:
    """Write the style of a heatmap; for the scale see `heatmap_stops`.

    Args:
        path: The heatmap's path with the suffix `.qml`.
        usual: What a normal tile scores.
        threshold: A tile that scores more is flagged.
    """
    stops = heatmap_stops(usual, threshold)
    low, high = stops[0][0], stops[-1][0]
    items = "".join(
        f'\n          <item value="{value!r}" color="{colour}" alpha="{opacity}" label={quoteattr(label)}/>'
        for value, colour, opacity, label in stops
    )
    text = f"""<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.22.0" styleCategories="Symbology">
  <pipe>
    <rasterrenderer type="singlebandpseudocolor" band="1" opacity="1" alphaBand="-1" nodataColor=""
                    classificationMin="{low!r}" classificationMax="{high!r}">
      <minMaxOrigin>
        <limits>None</limits>
      </minMaxOrigin>
      <rastershader>
        <colorrampshader colorRampType="INTERPOLATED" classificationMode="1" clip="0"
                         minimumValue="{low!r}" maximumValue="{high!r}">{items}
        </colorrampshader>
      </rastershader>
    </rasterrenderer>
  </pipe>
  <blendMode>0</blendMode>
</qgis>
"""
    write_text(path, text)


def write_outline_style(path: Path, label: str) -> None:
    """Write the style of `outline_style` as a file.

    Args:
        path: The vector file's path with the suffix `.qml`.
        label: What is written beside each polygon, an expression of QGIS.
    """
    write_text(path, outline_style(label))


def outline_style(label: str, line: str = LINE, dashed: bool = False) -> str:
    """A style that outlines polygons and leaves what lies within them to be seen.

    Args:
        label: What is written beside each polygon, an expression of QGIS.
        line: Colour of the outline: red, green, blue and opacity, 0 to 255.
        dashed: Whether it is broken.
    """
    pen = "dash" if dashed else "solid"
    lines = "".join(
        f"""
        <layer class="SimpleLine" enabled="1" pass="0" locked="0">
          <Option type="Map">
            <Option name="line_color" type="QString" value="{colour}"/>
            <Option name="line_width" type="QString" value="{width}"/>
            <Option name="line_width_unit" type="QString" value="MM"/>
            <Option name="line_style" type="QString" value="{style}"/>
            <Option name="joinstyle" type="QString" value="miter"/>
          </Option>
        </layer>"""
        for colour, width, style in ((CASING, "1.1", "solid"), (line, "0.6", pen))
    )
    return f"""<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.22.0" styleCategories="Symbology|Labeling" labelsEnabled="1">
  <renderer-v2 type="singleSymbol" symbollevels="0" enableorderby="0" forceraster="0">
    <symbols>
      <symbol type="fill" name="0" alpha="1" clip_to_extent="1" force_rhr="0">{lines}
      </symbol>
    </symbols>
  </renderer-v2>
  <labeling type="simple">
    <settings calloutType="simple">
      <text-style fieldName={quoteattr(label)} isExpression="1" fontSize="10" fontSizeUnit="Point"
                  fontWeight="75" textColor="{CASING}">
        <text-buffer bufferDraw="1" bufferSize="0.8" bufferSizeUnits="MM" bufferColor="255,255,255,230"/>
      </text-style>
      <placement placement="1"/>
      <rendering obstacle="0"/>
    </settings>
  </labeling>
</qgis>
"""


SUPPRESSED_STYLE = outline_style(FLAG_LABEL, QUIET, dashed=True)
