"""SoccerNet's and OpenSportsLib's labels: moments, not actions."""

from losa_jax.data.annotations.tools.content import Content
from losa_jax.data.annotations.tools.file import File

TITLE = "SoccerNet"


def recognizes(file: File) -> bool:
    """Whether this is a Labels file of a game, or a list of games."""
    content = file.json
    if not isinstance(content, dict):
        return False
    if isinstance(data := content.get("data"), list):
        return any(isinstance(one, dict) and "events" in one for one in data)
    return isinstance(rows := content.get("annotations"), list) and any(
        isinstance(row, dict) and "gameTime" in row for row in rows)


def read(file: File, content: Content) -> None:
    """Reads the moments; those of a game are of its halves, "1" and "2"."""
    if "data" in file.json:
        for game in file.json["data"]:
            video = next((content.video(str(one.get("path", "")))
                          for one in game.get("inputs", [])
                          if one.get("type", "video") == "video"), None
                         ) or content.unnamed_video(file.path)
            for row in game.get("events", []):
                content.point(video, str(row.get("label", "")),
                              float(row["position_ms"]) / 1000)
        return
    game = str(file.json.get("UrlLocal") or file.path.parent.name)
    for row in file.json["annotations"]:
        half = str(row["gameTime"]).partition("-")[0].strip()
        content.point(content.video(f"{game.rstrip('/')}/{half}"),
                      str(row.get("label", "")), float(row["position"]) / 1000)
