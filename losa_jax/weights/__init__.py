"""Checkpoints in and out: one module per family holds its table of names.

A family of backbones is a module in `name_table.FAMILIES`, under its name in
`losa_jax.models.backbones.BACKBONES`. It defines

    TITLE: str
        the family's name for people.
    RULES: tuple[rules.Rule, ...]
        one line per parameter; those that a spec does not have are left out.
    HINTS: tuple[str, ...]
        fields of the spec that no tensor may show: keyword arguments of
        `infer_spec`. The options of `convert` give `heads`, `clip_frames`
        and `image_size`.
    WRAPPERS: tuple[str, ...]
        keys under which the family's files hold the state dict, the preferred
        first; `checkpoint_file.state_dict` adds the usual ones.
    JOINED: dict[str, tuple[str, ...]]
        names of RULES whose tensor some layouts keep in parts, which are
        joined on the first axis; `{i}` counts blocks in all of them.
    recognizes(names) -> bool
        whether a checkpoint is of the family, by its names in the file: also
        one that lacks a tensor, never one of another family.
    rename_tensors(tensors, config, notes) -> (tensors, hints)
        the tensors by the names of RULES, without prefixes and without what
        is not the encoder's, and arguments of `infer_spec`. `config` is the
        path of Hugging Face's config.json, which need not exist; `notes` is a
        list to extend with lines for people.
    infer_spec(tensors, **hints) -> spec
        from the names of RULES; every hint may be missing or None. Raises
        InputError for sizes that neither tensors nor hints show. Other
        errors are reported afterwards, all in one message.
    describe(spec) -> str
        a checkpoint in a line, for people.
"""
