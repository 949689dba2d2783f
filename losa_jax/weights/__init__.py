"""Checkpoints in and out: one module a family maps its names to ours.

    videomae                 `RULES`: names of VideoMAE's tensors, and ours
    actionformer, tridet     `RULES` of a head, beside `SHARED_RULES` of
                             `head_name_table`
    name_table, head_name_table
                             what these tables are made of
    checkpoint_file, torch_pickle
                             files to unread tensors
    open_checkpoint          a backbone's checkpoint: which family it is of,
                             its tensors by the names of the table
    backbone_folder, head_folder
                             converts to a folder of our format, and loads it
    torch_check              compares with torch (optional)

What a head's module has is in `head_name_table`. A family of backbones, named
`<family>` in `losa_jax.models.backbones.BACKBONES`, has the module
`losa_jax.weights.<family>`, which is opened by that name and has

    TITLE: str
        the family's name for people.
    RULES: tuple[name_table.Rule, ...]
        one line a parameter: the name in the checkpoint, the path of our
        parameter, and the layout, one of `name_table`'s or of the module's own.
        Parameters that a spec does not have are left out.
    HINTS: tuple[str, ...]
        fields of the spec that tensors may not tell. `infer_spec` takes them
        as keyword arguments; the options of `convert` are among `heads`,
        `clip_frames` and `image_size`.
    recognizes(names) -> bool
        whether a checkpoint is of the family, by its tensors' names as in
        the file. Also for one that lacks a tensor, but never for a
        checkpoint of another family.
    rename_tensors(tensors, config) -> name_table.Renamed
        the tensors by the names of RULES, without prefixes and without what
        is not the encoder's, which is noted. `config` is the path where
        Hugging Face has its config.json; it need not exist.
    infer_spec(tensors, **hints) -> spec
        by the names of RULES. Every hint may be missing or None. Sizes that
        neither tensors nor hints tell, and tensors that tell nothing, are an
        InputError; other faults are reported afterwards, all in one message.
    describe(spec) -> str
        a checkpoint in a line, for people.

and, where needed,

    WRAPPERS: tuple[str, ...]
        keys under which the family's files hold the state dict, those to
        prefer first; tried before `checkpoint_file.WRAPPERS`.
    JOINED: dict[str, tuple[str, ...]]
        names of RULES whose tensor some layouts keep in parts, which are
        joined on the first axis; `{i}` counts blocks in all of them.
    doubts(spec) -> list[str]
        what looks odd about a checkpoint that fits, a line each.
"""
