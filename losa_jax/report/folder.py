"""The page that lists the video pages of a folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from losa_jax.report.document import clock, escape, write_page
from losa_jax.report.page import VideoPage, count_text, link

# Detections drawn in the strip of a video.
_MAX_IN_STRIP = 60


def write_folder_page(output: Path, pages: Sequence[VideoPage], *,
                      title: str,
                      broken: Mapping[str, str] | None = None) -> None:
    """Writes the list of a folder's pages (`read_video_page`), in this order.

    `broken` is {video: reason} of the videos without a page.
    """
    total = sum(page.duration_seconds for page in pages)
    facts = [count_text(len(pages), "video"), clock(total), count_text(
        sum(len(page.segments) for page in pages), "detection")]
    cards = "".join(video_card(page, output.parent) for page in pages)
    parts = [f'<ul class="videos cards" id="videos">{cards}</ul>']
    if broken:
        facts.append(f"{len(broken)} without a page")
        reasons = "".join(
            f"<li><strong>{escape(name)}</strong> "
            f"{escape(reason.removeprefix(f'{name}: '))}</li>"
            for name, reason in broken.items())
        parts.append('<section class="card"><h2>Videos without a page</h2>'
                     f'<ul class="broken soft">{reasons}</ul></section>')
    write_list_page(output, title=title, facts=facts, parts=parts)


def write_list_page(output: Path, *, title: str, facts: Sequence[str],
                    parts: Sequence[str], styles: Sequence[str] = ()
                    ) -> None:
    """Writes a page with a search field for the element "videos".

    `parts` are HTML, and `styles` package files besides the usual ones.
    """
    write_page(output, "folder.html", title=title, facts=facts,
               styles=("base.css", "folder.css", *styles),
               scripts=("theme.js", "folder.js"),
               content={"parts": "".join(parts)})


def video_card(page: VideoPage, folder: Path) -> str:
    """Returns a link to a page with image, name and strip of detections."""
    image = (f'<img src="{page.poster}" alt="" loading="lazy">'
             if page.poster else '<span class="blank"></span>')
    facts = [clock(page.duration_seconds),
             count_text(len(page.segments), "detection")]
    if page.num_actions is not None:
        facts.append(count_text(page.num_actions, "action"))
    note = page.note and f'<p class="note soft">{escape(page.note)}</p>'
    return (
        '<li class="card column video" '
        f'data-name="{escape(page.title.lower())}">'
        f'<a href="{escape(link(page.path, folder))}">{image}'
        f"<h3>{escape(page.title)}</h3></a>"
        f'<p class="soft">{" · ".join(facts)}</p>{note}{_strip(page)}</li>')


def _strip(page: VideoPage) -> str:
    """Returns the best detections along the video, by class and score."""
    duration = max(page.duration_seconds, 1e-9)
    best = sorted(page.segments, key=lambda row: -row[3])[:_MAX_IN_STRIP]
    top = best[0][3] if best else 1.0
    height = 100 / max(len(page.labels), 1)
    bars = "".join(
        f'<rect class="hue{label % 12}" x="{1000 * start / duration:.1f}" '
        f'width="{max(1000 * (end - start) / duration, 4):.1f}" '
        f'y="{height * label:.1f}" height="{height:.1f}" '
        f'opacity="{max(score / (top or 1.0), 0.1):.2f}"/>'
        for start, end, label, score in reversed(best))
    return ('<svg class="strip" viewBox="0 0 1000 100" '
            'preserveAspectRatio="none" aria-hidden="true">'
            f"{bars}</svg>")
