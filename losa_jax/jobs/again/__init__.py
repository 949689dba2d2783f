"""The end of a round, see `losa_jax.training.rounds`.

`compare` sets the new run beside the one that it started from, and
`review_changes` counts what a person decided between the two.
"""
