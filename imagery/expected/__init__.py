"""What was to be expected of a scene: an image predicted from earlier scenes of its place.

`expect` fits the map of a scene once, `open_past` reads what it says window by window, and `imagery.tiles.read_tiles`
cuts that into tiles in step with the scene's own.
"""

from imagery.expected.expectation import Expectation, expect, split_witness
from imagery.expected.features import Transform
from imagery.expected.past import Past, PastReader, open_past

__all__ = ["Expectation", "Past", "PastReader", "Transform", "expect", "open_past", "split_witness"]
