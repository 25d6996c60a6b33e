"""Reports as one HTML file that needs nothing else; whatever comes from files is escaped."""

import base64
from collections.abc import Sequence
from html import escape
from string import Template

from metaloss.core.formatting import printable
from metaloss.core.plot_style import Picture

# No scripts, and nothing from elsewhere: the file can be sent and archived as it is.
PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222 }
body { max-width: 75rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; font-size: 0.86rem; font-variant-numeric: tabular-nums }
th, td { padding: 0.25rem 0.7rem; text-align: right; white-space: nowrap }
th, td { border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left } thead th { border-bottom: 2px solid #555 }
div.wide { overflow-x: auto } img { max-width: 100%; height: auto } figure { margin: 1.5rem 0 }
td img { display: inline-block; width: 4.5rem; margin-right: 0.8rem; vertical-align: middle }
figcaption, .note { color: #555; font-size: 0.9rem }
pre { background: #f5f5f5; padding: 0.8rem; white-space: pre-wrap; overflow-wrap: anywhere }
</style></head><body>
<h1>$title</h1>
$body
</body></html>
""")


def page(title: str, parts: Sequence[str]) -> str:
    """A whole page.

    Args:
        title: its heading, plain text.
        parts: its body, each part HTML that the functions below made.
    """
    return PAGE.substitute(title=text(title), body="\n".join(parts))


def text(plain: str) -> str:
    """A text of several lines at most, so that a browser shows it and obeys nothing in it."""
    return "\n".join(escape(printable(line)) for line in plain.split("\n"))


def section(heading: str, *parts: str) -> str:
    """A heading, and what stands under it as HTML."""
    return "\n".join([f"<h2>{text(heading)}</h2>", *parts])


def paragraph(plain: str) -> str:
    """A paragraph."""
    return f"<p>{text(plain)}</p>"


def note(plain: str) -> str:
    """A paragraph of lesser weight."""
    return f'<p class="note">{text(plain)}</p>'


def preformatted(plain: str) -> str:
    """Lines as they are."""
    return f"<pre>{text(plain)}</pre>"


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    thumbnails: Sequence[bytes | None] = (),
) -> str:
    """A table.

    Args:
        columns: its heading.
        rows: the texts of its cells.
        thumbnails: a PNG to stand before the text of each row's first cell; None: nothing does.
    """
    head = "".join(f"<th>{text(x)}</th>" for x in columns)
    images = [*map(_image, thumbnails)] or [""] * len(rows)
    body = "\n".join(
        f"<tr><td>{image}{text(row[0])}</td>{''.join(f'<td>{text(x)}</td>' for x in row[1:])}</tr>"
        for image, row in zip(images, rows, strict=True)
    )
    rows_of_table = f"<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody>"
    return f'<div class="wide"><table>{rows_of_table}</table></div>'


def _image(png: bytes | None, alt: str = "") -> str:
    """A picture within the page, which then needs no folder beside it."""
    if png is None:
        return ""
    data = base64.b64encode(png).decode()
    return f'<img alt="{alt}" src="data:image/png;base64,{data}">'


def bullets(lines: Sequence[str]) -> str:
    """A list."""
    return "<ul>" + "\n".join(f"<li>{text(x)}</li>" for x in lines) + "</ul>"


def figure(picture: Picture) -> str:
    """A picture with its caption."""
    caption = text(picture.caption)
    return f"<figure>{_image(picture.png, caption)}<figcaption>{caption}</figcaption></figure>"
