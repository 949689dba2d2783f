"""HTML pages, each one file, made of package files and untrusted text.

A page holds everything but the video. Untrusted text enters in two ways only:
escaped by `html.escape`, or as JSON in a script element by `script_json`. The
page's content security policy allows only our own script, by its hash, and
only files beside the page.
"""

import base64
import hashlib
import json
import string
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from losa_jax.utils.atomic_write import make_folder, write_bytes

_POLICY = ("default-src 'none'; script-src {script}; style-src {style}; "
           "base-uri 'none'; form-action 'none'; ")
# Of a page on a disk, and of one that a server of ours sends.
_FILE_POLICY = "img-src data:; media-src 'self' file: data:"
SERVED_POLICY = "img-src 'self' data:; media-src 'self'; connect-src 'self'"


def script_json(content: Any) -> str:
    """Returns JSON that cannot end the script element around it."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return (text.replace("&", "\\u0026").replace("<", "\\u003c")
            .replace(">", "\\u003e"))


def write_page(path: Path, template: str, *, title: str,
               facts: Sequence[str], styles: Sequence[str],
               scripts: Sequence[str], content: Mapping[str, str],
               data: Any = None) -> None:
    """Writes the page of `page_text` atomically and creates its folder."""
    text = page_text(template, title=title, facts=facts, styles=styles,
                     scripts=scripts, content=content, data=data)
    make_folder(path.parent)
    # File names may hold surrogates, which UTF-8 cannot encode.
    write_bytes(path, text.encode("utf-8", errors="replace"))


def page_text(template: str, *, title: str, facts: Sequence[str],
              styles: Sequence[str], scripts: Sequence[str],
              content: Mapping[str, str], data: Any = None,
              policy: str = _FILE_POLICY) -> str:
    """Returns a page.

    Template, styles and scripts are package files. `content`, HTML, replaces
    the template's $names; $timeline is that of all pages with one. Title and
    facts are not escaped yet. `data` is JSON content for the scripts, in the
    element "data". `policy` says what the page may load.
    """
    style = "".join(map(_package_file, styles))
    script = "".join(map(_package_file, scripts))
    title = escape(title)
    body = string.Template(_package_file(template)).substitute(
        content, title=title, timeline=_package_file("timeline.html"),
        facts="".join(f"<li>{escape(fact)}</li>" for fact in facts))
    return string.Template(_package_file("document.html")).substitute(
        policy=_POLICY.format(script=_hash(script), style=_hash(style))
        + policy, title=title, style=style, body=body,
        data=script_json(data), script=script)


def table(head: Sequence[str], rows: Iterable[tuple[str, Sequence[str], str]],
          attributes: str = "") -> str:
    """Returns an HTML table with a heading row of texts.

    Rows are (heading, cells, attributes of the row), all as HTML.
    """
    columns = "".join(f'<th scope="col">{escape(name)}</th>' if name
                      else "<td></td>" for name in head)
    body = "".join(
        f'<tr{row_attributes}><th scope="row">{name}</th>{"".join(cells)}</tr>'
        for name, cells, row_attributes in rows)
    return (f'<div class="wide"><table{attributes}><thead><tr>{columns}</tr>'
            f"</thead><tbody>{body}</tbody></table></div>")


def clock(seconds: float) -> str:
    """Returns 1:02:03.4 or 2:03.4."""
    tenths = round(max(seconds, 0.0) * 10)
    hours, rest = divmod(tenths, 36000)
    minutes, rest = divmod(rest, 600)
    tail = f"{rest // 10:02d}.{rest % 10}"
    return f"{hours}:{minutes:02d}:{tail}" if hours else f"{minutes}:{tail}"


def _package_file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    """Returns the policy's source expression that allows only this text."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
