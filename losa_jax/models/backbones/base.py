"""What every frozen backbone gives."""

from typing import NamedTuple

from jaxtyping import Array


class ClipFeatures(NamedTuple):
    """What the frozen backbone gives for n clips.

    Attributes:
      last: [n, u, c], spatial mean of the last block's output.
      taps: [k, n, u, g, g, c], the tapped blocks' outputs on the tap grid.
    """

    last: Array
    taps: Array
