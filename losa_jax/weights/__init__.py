"""Checkpoints in and out: one module per family holds its table of names.

A family of backbones is a module in `name_table.FAMILIES`, under its name in
`losa_jax.models.backbones.BACKBONES`. It defines

    TITLE: str
        the family's name in messages.
    RULES: tuple[rules.Rule, ...]
        one line per parameter; those that a spec does not have are left out.
    HINTS: tuple[str, ...]
        arguments of `infer_spec` that no tensor may show. Options of
        `convert` give `heads`, `clip_frames` and `image_size`.
    WRAPPERS: tuple[str, ...]
        further keys under which files hold the state dict, the preferred
        first.
    JOINED: dict[str, tuple[str, ...]]
        names of RULES whose tensor some layouts keep in parts, which are
        joined on the first axis; `{i}` counts blocks in all of them.
    recognizes(names) -> bool
        whether a checkpoint is of the family, even if it lacks a tensor.
    rename_tensors(tensors, config, notes) -> (tensors, hints)
        the encoder's tensors by the names of RULES, and arguments of
        `infer_spec`. `config` is the path of Hugging Face's config.json,
        which need not exist; `notes` is a list of lines to extend.
    infer_spec(tensors, **hints) -> spec
        from the names of RULES; every hint may be missing or None. Raises
        InputError for sizes that neither tensors nor hints show.
    describe(spec) -> str
        a line about a checkpoint.
    probe_tensors(path) -> tensors
        only where classifiers are published in files of their own: their
        tensors by the names of RULES.
"""
