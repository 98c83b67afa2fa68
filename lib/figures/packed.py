"""Text within a page in fewer bytes: gzip, as base64, which the page unpacks itself, offline."""

import base64
import gzip

# unpacked(ID): the text that the element of that id holds
SCRIPT = """const unpacked = async id => {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent.trim()), c => c.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };"""


def packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def unpacked(text: str) -> str:
    return gzip.decompress(base64.b64decode(text)).decode()


def element(id: str, content: str) -> str:
    """The element that holds what is packed; its attributes are in the order in which reports are written."""
    return f'<script id="{id}" type="text/plain">{content}</script>'


def held(page: str, id: str) -> str:
    """The text that an element of a page holds. Raises ValueError where there is no such element."""
    _, found, rest = page.partition(element(id, "").removesuffix("</script>"))
    if not found:
        raise ValueError(f"this page has no element {id!r}")
    return unpacked(rest.partition("<")[0])
