"""Completes a config: a backbone by name, and sizes that fit the data set."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from losa_jax.data.features import tap_cache
from losa_jax.data.records import AnnotatedVideo, VideoInfo
from losa_jax.data.video import check
from losa_jax.distributed import processes, remote_workdir
from losa_jax.errors import InputError
from losa_jax.jobs import setup
from losa_jax.jobs.convert import convert
from losa_jax.models.backbones.base import BackboneSpec
from losa_jax.training import fitted_sizes, rounds, specs
from losa_jax.utils import atomic_write, run_files
from losa_jax.utils.text_files import read_json
from losa_jax.weights import backbone_folder, checkpoint_file


def fit_config(config: Any, workdir: Path) -> None:
    """Replaces the name of a backbone by its folder, and sets and prints the
    keys of `fitted_sizes.KEYS` that are 0.

    A run in the work directory, and one whose weights a run begins with, have
    sizes already: they stay, for their weights have them.

    Raises:
      InputError: the backbone cannot be fetched; annotations or videos from
        which the sizes would be chosen are not given, or cannot be read.
    """
    backbone = None
    if not config.features.folder:
        fit_backbone(config)
        if fitted_sizes.automatic_keys(config):
            backbone, _, _ = specs.configured_backbone(config)
    fit_sizes(config, workdir, backbone)


def fit_sizes(config: Any, workdir: Path, backbone: BackboneSpec | None,
              facts: fitted_sizes.DataFacts | None = None) -> None:
    """Does the second part of `fit_config`.

    Args:
      backbone: None if it is unknown.
      facts: of the training videos; None reads annotations and videos.
    """
    keys = fitted_sizes.automatic_keys(config)
    if not keys:
        return
    run, chosen = _sizes_of_run(config, workdir)
    source = f"of the run in {run}"
    if not all(chosen.get(key) for key in keys):
        facts = facts or _read_facts(config, workdir, keys)
        if not facts.lengths_seconds:
            raise InputError(
                f"{config.data.annotations}: no training action has a length, "
                "to which sizes could be fitted: correct the annotations")
        kept = _sizes_of_cache(config, keys)
        fitted_sizes.set_values(config, kept)
        source, chosen = f"for {facts}", kept | fitted_sizes.choose_sizes(
            config, facts, backbone)
    fitted_sizes.set_values(config, {key: chosen[key] for key in keys})
    print(f"sizes {source}; --config.KEY=VALUE sets another:\n  "
          + " ".join(f"{key}={chosen[key]:g}" for key in keys))


def fit_backbone(config: Any) -> None:
    """Replaces config.backbone.checkpoint, if that is OWNER/NAME of the
    Hugging Face hub, by the folder into which it is converted.

    It is downloaded and converted once, into the user's cache.

    Raises:
      InputError: as of `hub.download` and `convert`.
    """
    name = config.backbone.checkpoint
    if not checkpoint_file.is_hub_name(name):
        return
    folder = cache_folder() / name.replace("/", "--")
    with processes.first_goes_first("backbone"):
        if not (folder / backbone_folder.FACTS_FILE).is_file():
            # Imported late: it brings a client of the network.
            from losa_jax.weights import hub

            try:
                checkpoint, origin = hub.download(name)
            except InputError as error:
                raise InputError(
                    f"config.backbone.checkpoint={name}: {error}\n"
                    "--config.backbone.checkpoint=FOLDER names a backbone "
                    "that `python -m losa_jax.convert FILE --output=FOLDER` "
                    "made of a file from elsewhere (docs/weights.md)"
                    ) from error
            convert(checkpoint, folder, origin=origin)
    config.backbone.checkpoint = str(folder)


def cache_folder() -> Path:
    """Returns the folder of backbones that were fetched by name."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "losa_jax/backbones")


def _sizes_of_run(config: Any, workdir: Path) -> tuple[str, dict[str, Any]]:
    """Returns the name and the sizes of the run in the work directory, or of
    the one whose weights a new run begins with; "" without one."""
    remote_workdir.fetch(workdir, run_files.CONFIG_FILE)
    folders = [workdir, rounds.latest(workdir)]
    if start := config.train.start_from:
        folders.append(remote_workdir.local_folder(start, only_reads=True))
    for folder in filter(None, folders):
        path = folder / run_files.CONFIG_FILE
        if path.is_file():
            return str(folder), {
                f"{section}.{name}": value
                for section, values in read_json(path).items()
                if isinstance(values, dict)
                for name, value in values.items()}
    return "", {}


def _sizes_of_cache(config: Any, keys: Sequence[str]) -> dict[str, Any]:
    """Returns those of the sizes that features cached before a run have: with
    others they would have to be computed again."""
    facts = tap_cache.stored_facts(config.data.cache) if (
        config.data.cache) else {}
    return {key: facts[name] for key, name in (
        ("window.sample_fps", "sample_fps"), ("augment.size", "size"))
        if key in keys and facts.get(name)}


def data_facts(videos: Sequence[AnnotatedVideo],
               infos: Mapping[str, VideoInfo]) -> fitted_sizes.DataFacts:
    """Returns the facts of training videos, some of which can be read."""
    readable = [infos[video.video_id] for video in videos
                if video.video_id in infos]
    return fitted_sizes.DataFacts(
        _lengths(videos), [info.duration_seconds for info in readable],
        float(np.median([info.fps for info in readable])),
        int(np.median([min(info.height, info.width) for info in readable])))


def _lengths(videos: Sequence[AnnotatedVideo]) -> list[float]:
    return [action.end_seconds - action.start_seconds
            for video in videos for action in video.actions
            if action.end_seconds > action.start_seconds]


def _read_facts(config: Any, workdir: Path, keys: list[str]
                ) -> fitted_sizes.DataFacts:
    """Returns the facts of the training videos, by their files, or by the
    annotations where no videos are given."""
    data, values = config.data, " ".join(f"--config.{key}=VALUE"
                                         for key in keys)
    if not data.annotations and not data.tfds:
        raise InputError(f"config.{keys[0]}=0 is fitted to annotations: set "
                         f"--config.data.annotations, or {values}")
    stored = setup.open_stored(config)
    annotations = setup.read_annotations(config, stored, prints=False)
    videos, = setup.select_videos(
        config, annotations, [(setup.TRAIN_KEY, data.train_subset)])
    if data.videos or stored is not None:
        atomic_write.make_folder(workdir)
        infos, broken = setup.probe(config, videos, workdir, stored)
        check.report_broken(broken, len(videos), data.on_broken_video)
        return data_facts(videos, infos)
    unknown = [video.video_id for video in videos
               if not (video.duration_seconds and video.fps)]
    if unknown:
        raise InputError(
            f"{annotations.path}: {len(unknown)} videos, as {unknown[0]}, have "
            f"no \"duration\" or \"fps\": set --config.data.videos, or "
            f"{values}")
    return fitted_sizes.DataFacts(
        _lengths(videos), [video.duration_seconds or 0.0 for video in videos],
        float(np.median([video.fps or 0.0 for video in videos])))
