"""Finds the videos of a folder: whatever FFmpeg opens with a video stream.

The ending is looked at first: files that are surely videos, or surely none,
are not opened.
"""

import logging
import os
import re
from pathlib import Path

from losa_jax.data.video.container import VideoDecodeError, open_video
from losa_jax.errors import InputError
from losa_jax.utils.file_type import recognize
from losa_jax.utils.folder_files import (
    FolderFiles,
    quoted,
    require_path_inside,
)
from losa_jax.utils.names import VIDEO_ENDINGS
from losa_jax.utils.text_files import nfc

logger = logging.getLogger(__name__)

_FEATURES = "features"
_NUMBERS = (".261", ".263", ".264", ".265", ".266")
# {reason: endings} of files that are not opened.
_OTHER_ENDINGS = {
    "text": ".txt .md .rst .log .csv .tsv .json .jsonl .xml .yaml .yml .toml "
            ".ini .cfg .html .htm .svg .py .sh .m .c .js .css .tex .nfo .url "
            ".desktop .eaf .textgrid .lnk .m3u .m3u8 .pls .cue .edl",
    "subtitles": ".srt .vtt .ass .ssa .sub .idx .sbv .ttml .lrc",
    "images": ".jpg .jpeg .jpe .jfif .png .bmp .dib .tif .tiff .webp .heic "
              ".heif .avif .ico .psd .raw .cr2 .nef .arw .dng .ppm .pgm .pbm "
              ".pnm .pcx .tga .exr .hdr .jp2 .j2k .jxl .sgi .rgb",
    "sound": ".wav .mp3 .m4a .aac .flac .opus .oga .wma .aif .aiff .mid .amr "
             ".ac3 .mka .weba .caf",
    _FEATURES: ".npy .npz",
    "data": ".pt .pth .ckpt .pkl .pickle .h5 .hdf5 .mat .parquet "
            ".safetensors .onnx .db .sqlite .zip .tar .gz .tgz .bz2 .xz .zst "
            ".7z .rar .pdf .doc .docx .xls .xlsx .ppt .pptx .ods .odt .exe "
            ".dll .so .pyc .ipynb .md5 .sha1 .sha256 .par2 .torrent .thm "
            ".sfv .dvc",
    "partial downloads": ".part .crdownload .download .partial .opdownload "
                         ".aria2 .ytdl .filepart .incomplete .tmp .temp .!ut "
                         ".!qb .bc!",
}
_REASONS = {ending: reason for reason, endings in _OTHER_ENDINGS.items()
            for ending in endings.split()}
_FRAGMENT = re.compile(r"\.part-frag\d+$")
# Folders that file managers and network drives make.
_HIDDEN_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN",
                   "System Volume Information")
_SHOWN_NAMES = 3
_NO_STREAM = "without a video stream"

# {reason: names of files}.
LeftOut = dict[str, list[str]]


class SeveralVideosError(InputError):
    """An id names several videos."""


class VideoFolder:
    """The videos of a folder by their id, which is the file's name without
    its ending; an id may begin with folders."""

    def __init__(self, folder: Path):
        """Lists a folder; InputError if it is missing."""
        self._files = FolderFiles(folder, "folder of videos",
                                  "config.data.videos")

    def find(self, video_id: str) -> Path:
        """Returns the file of a video; InputError if there is not just one.

        Subfolders are searched for an id that the folder itself does not
        have. Files of that name which may be videos are opened where there
        are several.
        """
        require_path_inside(video_id)
        folder, others = self._files.folder, dict[str, str]()
        # ActivityNet's videos circulate with "v_" before their id.
        prefix, _, last = video_id.rpartition("/")
        youtube = f"{prefix}/v_{last}" if prefix else f"v_{last}"
        for named in (look_up(name) for look_up in (
                self._files.named, self._files.below)
                for name in (video_id, youtube)):
            others |= {one: reason for one in named
                       if (reason := why_no_video(os.path.basename(one)))}
            if names := [one for one in named if one not in others]:
                break
        if len(names) > 1:
            # A damaged video remains one: another is not taken in its place.
            names = [name for name in names if not (
                reason := _why_no_video_inside(folder / name)) or (
                reason != _NO_STREAM and _ending(name) in VIDEO_ENDINGS)
                     ] or names
        if len(names) > 1:
            raise SeveralVideosError(
                f"several files: {quoted(names)} in {folder}; keep one, or "
                "name its folder in the id of the video")
        if names:
            return folder / names[0]
        hints = [f"{quoted([name])} is left out ({reason})"
                 for name, reason in others.items()]
        if video_id in self._files.subfolders:
            hints.append(f"{video_id} is a folder")
        near = [name for name in self._files.nearest(video_id)
                if name not in others]
        hints += [f"the nearest there: {quoted(near)}"] if near else []
        raise InputError("; ".join([
            f"no file {video_id} with the ending of a video in {folder}",
            *hints]))

    def left_out(self) -> LeftOut:
        """Returns the content that its names show to be no videos; InputError
        for a folder of features."""
        others = {name: reason for name in self._files.files
                  if (reason := why_no_video(name))}
        features = [name for name, reason in others.items()
                    if reason == _FEATURES]
        if features and len(others) == len(self._files.files):
            folder = quoted([str(self._files.folder)])
            raise InputError(
                f"--config.data.videos={folder}: holds features "
                f"({quoted(features[:1])}) and no video: name the folder of "
                "the videos, or train on the features: a recipe of features "
                f"with --config.features.folder={folder}")
        left_out = _left_out(self._files, others)
        left_out.pop("subfolders", None)  # `find` searches them
        return left_out

    def videos(self) -> tuple[list[Path], LeftOut]:
        """Returns all videos, sorted, and what is left out; opens files of
        unknown endings."""
        others = {}
        for name in self._files.files:
            if reason := why_no_video(name) or (
                    "" if _ending(name) in VIDEO_ENDINGS
                    else _why_no_video_inside(self._files.folder / name)):
                others[name] = reason
        return [self._files.folder / name for name in self._files.files
                if name not in others], _left_out(self._files, others)


def videos_below(folder: Path) -> tuple[list[Path], LeftOut]:
    """Returns the videos of a folder and its subfolders, sorted, and what is
    left out; InputError if the folder cannot be listed."""
    videos: list[Path] = []
    left_out: LeftOut = {}
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        try:
            current = VideoFolder(path)
        except InputError:
            if path == folder:
                raise
            left_out.setdefault("folders without access", []).append(
                str(path))
            continue
        more, others = current.videos()
        subfolders = others.pop("subfolders", [])
        for name in subfolders:
            path = current._files.folder / name
            if name.startswith(".") or name in _HIDDEN_FOLDERS:
                others.setdefault("hidden", []).append(name)
            elif path.is_symlink():  # which may lead in circles
                others.setdefault("links to folders", []).append(name)
            else:
                waiting.append(path)
        videos += more
        for reason, names in others.items():
            left_out.setdefault(reason, []).extend(names)
    return sorted(videos), left_out


def video_id_of(path: Path) -> str:
    """Returns the name of a file without its ending, in Unicode NFC; a number
    at the end of a name is no ending ("video.1")."""
    has_ending = not path.suffix[1:].isdigit() or path.suffix in _NUMBERS
    return nfc(path.stem if has_ending else path.name)


def warn_left_out(folder: Path, left_out: LeftOut) -> None:
    """Warns in one line of what a folder holds beside videos."""
    parts = []
    for reason, names in left_out.items():
        more = ", ..." if len(names) > _SHOWN_NAMES else ""
        parts.append(f"{reason}: {len(names)} "
                     f"({quoted(names[:_SHOWN_NAMES])}{more})")
    if parts:
        logger.warning("%s: left out, because they are no videos: %s", folder,
                       "; ".join(parts))


def why_no_video(name: str) -> str:
    """Returns why the file of a name is left out; "" if it may be a video."""
    if name.startswith("."):
        return "hidden"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "names not in UTF-8"
    if _FRAGMENT.search(name.lower()):
        return "partial downloads"
    return _REASONS.get(_ending(name), "")


def _why_no_video_inside(path: Path) -> str:
    """Opens a file; returns why it is left out, "" if it is a video."""
    file_type = recognize(path)
    # Motion JPEG begins as an image does.
    if file_type is not None and not file_type.title.startswith(
            ("a video", "an image")):
        return file_type.title.partition(" (")[0]
    try:
        with open_video(path):
            return ""
    except VideoDecodeError as error:
        return (_NO_STREAM if "no video stream" in str(error)
                else "that FFmpeg cannot open")


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _left_out(files: FolderFiles, others: dict[str, str]) -> LeftOut:
    left_out: LeftOut = {}
    for name, reason in others.items():
        left_out.setdefault(reason, []).append(name)
    for reason, names in (("subfolders", files.subfolders),
                          ("broken links or devices", files.special)):
        if names:
            left_out[reason] = list(names)
    return left_out
