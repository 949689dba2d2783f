"""One HTML file from package files and untrusted text.

A page holds all it needs but the video: style, script, data, pictures. Text
from outside reaches it in two ways only: escaped by `escape`, or as JSON in a
script element by `script_json`; and the page's own policy forbids every
script but ours, by its hash, and every address but files beside it.
"""

import base64
import hashlib
import html
import json
import string
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from losa_jax.utils.atomic_write import written_whole

_POLICY = ("default-src 'none'; script-src {script}; style-src {style}; "
           "img-src data:; media-src 'self' file: data:; base-uri 'none'; "
           "form-action 'none'")


def escape(text: object) -> str:
    """For element text and quoted attributes."""
    return html.escape(str(text), quote=True)


def script_json(content: Any) -> str:
    """JSON that cannot end the script element it stands in.

    Raises:
      ValueError: a number that is not finite.
    """
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    # ASCII already; what HTML's parser looks for is written as escapes.
    return (text.replace("&", "\\u0026").replace("<", "\\u003c")
            .replace(">", "\\u003e"))


def make_document(template: str, *, title: str, styles: Sequence[str],
                  scripts: Sequence[str], content: Mapping[str, str],
                  data: Any = None) -> str:
    """The text of a page.

    Args:
      template: package file of the body; $name is replaced by `content`.
      title: as it is, escaped here.
      styles, scripts: package files, in this order.
      content: HTML for the template, its text escaped already.
      data: for the script, which reads it from the element "data".
    """
    style = "".join(map(_package_file, styles))
    script = "".join(map(_package_file, scripts))
    body = string.Template(_package_file(template)).substitute(
        content, title=escape(title))
    policy = _POLICY.format(script=_source(script), style=_source(style))
    return string.Template(_package_file("document.html")).substitute(
        policy=policy, title=escape(title), style=style, body=body,
        data=script_json(data), script=script)


def write_page(path: Path, text: str) -> None:
    """Whole or not at all; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary:
        # A lone surrogate of an odd file name must not stop the page.
        temporary.write_text(text, encoding="utf-8", errors="replace")


def data_uri(content: bytes, kind: str) -> str:
    """`content` as an address; `kind` as image/jpeg."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def clock(seconds: float) -> str:
    """1:02:03.4 or 2:03.4."""
    tenths = round(max(seconds, 0.0) * 10)
    hours, rest = divmod(tenths, 36000)
    minutes, rest = divmod(rest, 600)
    tail = f"{rest // 10:02d}.{rest % 10}"
    return f"{hours}:{minutes:02d}:{tail}" if hours else f"{minutes}:{tail}"


def _package_file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _source(text: str) -> str:
    """Of a policy: this text and no other."""
    if not text:
        return "'none'"
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
