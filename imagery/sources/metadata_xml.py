"""Metadata in XML, read without trust in who wrote it."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.parsers import expat

from imagery.errors import ImageryError


def parse_xml(content: bytes) -> Element:
    """The root of an XML document.

    Document types are refused: with entities, a small file can ask for all memory there is, or for other files.

    Raises:
        ImageryError: It is damaged, or declares a document type.
    """
    guard = expat.ParserCreate()
    guard.StartDoctypeDeclHandler = _refuse
    try:
        guard.Parse(content, True)
        return ElementTree.fromstring(content)
    except (expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
        if isinstance(error, ImageryError):
            raise
        raise ImageryError(f"its metadata is no XML that can be read: {error}") from error


def texts(root: Element, *names: str) -> Iterator[str]:
    """The text of all elements of these names, whatever their namespace."""
    for element in root.iter():
        if element.tag.rpartition("}")[2] in names and element.text and element.text.strip():
            yield element.text.strip()


def text(root: Element, *names: str) -> str:
    """The text of the first element of one of these names.

    Raises:
        ImageryError: There is none.
    """
    for name in names:
        for found in texts(root, name):
            return found
    raise ImageryError(f"its metadata has no {' or '.join(names)}")


def _refuse(*_: object) -> None:
    raise ImageryError("its metadata declares a document type, which products do not: it is not read")
