"""Soft-NMS: ours, jitted, against a plain C++ loop, in one run.

    python -m benchmarks.nms_speed [--rounds=15]

20 classes, 2,000 and 20,000 candidates, up to 200 kept a class (as
ActionFormer) and 2,000 (as AdaTAD). The loop is compiled here with -O3 and
one thread, as the public extension. Both give the same picks, or this stops.
"""

import argparse
import ctypes
import statistics
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common.figures import interleaved, ratio, table
from losa_jax.detection.nms import NmsSettings, suppress
from losa_jax.detection.segments import Segments

CLASSES = 20
SIGMA, MIN_SCORE = 0.5, 0.001
_LOOP = r"""
#include <algorithm>
#include <cmath>
#include <vector>
// Picks of one class: rows and decayed scores; returns how many.
extern "C" int pick(const float* start, const float* end, float* score,
                    int n, float sigma, float min_score, int most,
                    int* rows, float* scores) {
  std::vector<int> left(n);
  for (int i = 0; i < n; ++i) left[i] = i;
  int kept = 0;
  while (!left.empty() && kept < most) {
    size_t best = 0;
    for (size_t i = 1; i < left.size(); ++i)
      if (score[left[i]] > score[left[best]]) best = i;
    const int row = left[best];
    rows[kept] = row;
    scores[kept++] = score[row];
    left.erase(left.begin() + best);
    const float length = end[row] - start[row] + 1e-6f;
    size_t stay = 0;
    for (int other : left) {
      const float shared = std::max(
          0.0f, std::min(end[row], end[other])
                    - std::max(start[row], start[other]));
      const float overlap = shared / (length + end[other] - start[other]
                                      + 1e-6f - shared);
      score[other] *= std::exp(-overlap * overlap / sigma);
      if (score[other] >= min_score) left[stay++] = other;
    }
    left.resize(stay);
  }
  return kept;
}
"""


def build_loop(folder: Path):
    """The compiled loop as a function over all classes."""
    source, library = folder / "loop.cpp", folder / "loop.so"
    source.write_text(_LOOP)
    subprocess.run(["g++", "-O3", "-march=native", "-shared", "-fPIC",
                    str(source), "-o", str(library)], check=True)
    pick = ctypes.CDLL(str(library)).pick

    def pointer(array: np.ndarray):
        return array.ctypes.data_as(ctypes.c_void_p)

    def run(segments, scores, labels, most):
        kept_rows, kept_scores = [], []
        for k in range(CLASSES):
            rows = np.flatnonzero(labels == k)
            start = np.ascontiguousarray(segments[rows, 0])
            end = np.ascontiguousarray(segments[rows, 1])
            left = np.ascontiguousarray(scores[rows])
            picks = np.empty(len(rows), np.int32)
            decayed = np.empty(len(rows), np.float32)
            count = pick(pointer(start), pointer(end), pointer(left),
                         len(rows), ctypes.c_float(SIGMA),
                         ctypes.c_float(MIN_SCORE), most, pointer(picks),
                         pointer(decayed))
            kept_rows.append(rows[picks[:count]])
            kept_scores.append(decayed[:count])
        rows, decayed = map(np.concatenate, (kept_rows, kept_scores))
        best = np.argsort(-decayed, kind="stable")[:most]
        return segments[rows[best]], decayed[best], labels[rows[best]]

    return run


def make_candidates(count: int) -> tuple[np.ndarray, ...]:
    """Crowds around some hundred actions, as a head gives them."""
    rng = np.random.default_rng(0)
    center = rng.choice(rng.uniform(0, 2304, 150), count)
    length = rng.lognormal(2.5, 0.8, count)
    middle = center + rng.normal(0, 3, count)
    segments = np.stack([middle - length / 2, middle + length / 2], 1)
    scores = rng.beta(0.3, 3.0, count)
    return (segments.astype(np.float32), scores.astype(np.float32),
            rng.integers(0, CLASSES, count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        loop = build_loop(Path(folder))
        rows = [_compare(loop, count, most, rounds)
                for count in (2_000, 20_000) for most in (200, 2_000)]
    print(table(["candidates", "kept", "ours ms", "C++ ms", "ratio to C++"],
                rows))


def _compare(loop, count: int, most: int, rounds: int) -> list[str]:
    candidates = make_candidates(count)

    def ours():
        left, _ = suppress(
            Segments(*candidates, np.ones(count, bool)), CLASSES, NmsSettings(
                sigma=SIGMA, min_score=MIN_SCORE, max_kept=most))
        return left[:3]

    def theirs():
        return loop(*candidates, most)

    one, two = ours(), theirs()
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_allclose(one[1], two[1], rtol=1e-4)
    seconds = interleaved({"ours": ours, "C++": theirs}, rounds)
    cells = [f"{1e3 * statistics.median(times):.1f} ({1e3 * min(times):.1f} "
             f".. {1e3 * max(times):.1f})" for times in seconds.values()]
    return [f"{count:,}", f"{most:,}", *cells,
            f"{ratio(seconds['ours'], seconds['C++']):.2f}"]


if __name__ == "__main__":
    main()
