"""How benchmarks measure side by side, and the tables that they print.

A benchmark prints one or more Markdown tables and plain lines;
`python -m benchmarks.run_all` puts them into RESULTS.md as they are.
"""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence


def interleaved(contestants: Mapping[str, Callable[[], object]], rounds: int
                ) -> dict[str, list[float]]:
    """Seconds of each contestant in each round.

    Every round runs all of them, one after the other, so that a machine
    whose speed drifts favors none. A contestant waits for its own result.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def times_table(seconds: Mapping[str, Sequence[float]],
                against: str | None = None, what: str = "what") -> str:
    """Markdown: median and spread of each, and ratios to one of them.

    Args:
      seconds: of each contestant, in the order of the rounds.
      against: whose times the others' are divided by, round by round; the
        median of the quotients is the ratio.
      what: title of the first column.
    """
    rows = []
    for name, numbers in seconds.items():
        row = [name, f"{_short(statistics.median(numbers))} s",
               f"{_short(min(numbers))} .. {_short(max(numbers))}",
               str(len(numbers))]
        if against is not None:
            row.append(f"{ratio(numbers, seconds[against]):.2f}")
        rows.append(row)
    titles = [what, "median", "spread", "rounds"]
    return table(titles + ([f"ratio to {against}"] if against else []), rows)


def rates_table(rates: Mapping[str, Sequence[float]], unit: str,
                against: str) -> str:
    """Markdown: median and spread of each rate, and how many times it the
    rate of `against` is."""
    rows = [(name, f"{statistics.median(numbers):,.0f}",
             f"{min(numbers):,.0f} .. {max(numbers):,.0f}", len(numbers),
             f"{ratio(rates[against], numbers):.2f}")
            for name, numbers in rates.items()]
    return table(["what", f"median {unit}", "spread", "rounds",
                  f"{against} / this"], rows)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over the rounds of ours / theirs."""
    return statistics.median(one / other for one, other
                             in zip(ours, theirs, strict=True))


def table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def use_cores(count: int) -> None:
    """Leaves this process so many cores; before jax or torch start, whose
    pools then have so many threads. Where the system cannot, nothing."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def _short(seconds: float) -> str:
    """Three digits that count."""
    return f"{seconds:.3g}" if seconds < 100 else f"{seconds:.0f}"
