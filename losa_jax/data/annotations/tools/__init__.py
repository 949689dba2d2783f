"""Reads and writes the files of annotation tools.

    file.py         a file: its bytes, text, JSON, XML, members of an archive
    content.py      what a reader reports, and the options of the user
    recording.py    the detections of a video that a writer writes
    video_names.py  the name of a video in a path or an address
    tables.py       CSV and TSV, numbers and clocks in cells
    layouts/        one module a layout, and the table of them
    read.py         a file or a folder to videos and actions
    database.py     videos and actions to the annotations of `losa_jax.main`

A module of a layout has

    TITLE                               the name of the tool, for messages
    recognizes(file) -> bool            whether the content has this layout
    read(file, content) -> None         adds videos, actions and remarks
    write(recordings, folder)           {file name: text}, where the tool can
                                        open what we write

All times are seconds from the first frame, half-open: [start, end). A reader
never decides in silence: what it leaves out, assumes or cuts goes into the
remarks, which are counted and printed with an example and the option that
changes it. Entries that cannot be meant as written are problems: all of them
are named in one InputError.
"""
