"""HTML pages, each one file, made of package files and untrusted text.

A page holds everything but the video: style, script, data, images. Untrusted
text enters in two ways only: escaped by `escape`, or as JSON in a script
element by `script_json`. The page's content security policy allows only our
own script, by its hash, and only files beside the page.
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

from losa_jax.utils.atomic_write import write_bytes

_POLICY = ("default-src 'none'; script-src {script}; style-src {style}; "
           "img-src data:; media-src 'self' file: data:; base-uri 'none'; "
           "form-action 'none'")


def escape(text: object) -> str:
    """Returns text for an element or a quoted attribute."""
    return html.escape(str(text), quote=True)


def items(texts: Sequence[str]) -> str:
    """Returns texts, escaped, as the items of a list."""
    return "".join(f"<li>{escape(text)}</li>" for text in texts)


def script_json(content: Any) -> str:
    """Returns JSON that cannot end the script element around it.

    Raises:
      ValueError: a number that is not finite.
    """
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return (text.replace("&", "\\u0026").replace("<", "\\u003c")
            .replace(">", "\\u003e"))


def make_document(template: str, *, title: str, styles: Sequence[str],
                  scripts: Sequence[str], content: Mapping[str, str],
                  data: Any = None) -> str:
    """Returns the text of a page.

    Args:
      template: package file of the body; `content` replaces its $names.
      title: not escaped yet.
      styles, scripts: package files, in this order.
      content: HTML, its text escaped already.
      data: JSON content for the script, in the element "data".
    """
    style = "".join(map(_package_file, styles))
    script = "".join(map(_package_file, scripts))
    body = string.Template(_package_file(template)).substitute(
        content, title=escape(title))
    policy = _POLICY.format(script=_hash(script), style=_hash(style))
    return string.Template(_package_file("document.html")).substitute(
        policy=policy, title=escape(title), style=style, body=body,
        data=script_json(data), script=script)


def write_page(path: Path, text: str) -> None:
    """Writes a page atomically and creates its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # File names may hold surrogates, which UTF-8 cannot encode.
    write_bytes(path, text.encode("utf-8", errors="replace"))


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
    if not text:
        return "'none'"
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
