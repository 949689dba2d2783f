"""Predicts on videos with Apache Beam: `predict --beam_runner=NAME`."""

import functools
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from losa_jax.inference.load import load
from losa_jax.inference.localizer import Localizer
from losa_jax.jobs.predict import predict_one
from losa_jax.jobs.prediction_files import Request, Settings

_loading = threading.Lock()


def predict_with_beam(requests: Sequence[Request], settings: Settings,
                      model: Mapping[str, Any], runner: str, options: Any
                      ) -> None:
    """Predicts on each video in some worker; `predict` then writes the files
    of all videos.

    Args:
      requests: files that every worker sees, or that are in a bucket.
      settings: the output folder too.
      model: arguments of `load`.
      runner, options: of the pipeline.
    """
    import apache_beam as beam

    with beam.Pipeline(runner=runner, options=options) as pipeline:
        _ = (pipeline | beam.Create([*requests]) | beam.Reshuffle()
             | beam.Map(_predict_one, settings, tuple(sorted(model.items()))))


def _predict_one(request: Request, settings: Settings,
                 model: tuple[tuple[str, Any], ...]) -> None:
    with _loading:  # the threads of a worker share it
        localizer = _loaded(model)
    predict_one(request, localizer, settings)


@functools.lru_cache(maxsize=1)
def _loaded(model: tuple[tuple[str, Any], ...]) -> Localizer:
    return load(**dict(model))
