"""One reader for every text: encodings, repeated keys, other files."""

import json
import re
from pathlib import Path

import pytest

from losa_jax.errors import InputError
from losa_jax.utils.text_files import read_json, read_lines, read_text

PACKAGE = Path(__file__).parents[2] / "losa_jax"
TEXT = '{"été": "saut à la perche"}\n'
# Files of this program, whose readers repair or replace what is damaged, and
# bytes that are no file of a user: messages, headers, pages.
OWN_FILES = {
    "data/annotations/activitynet_facts.py", "data/features/files.py",
    "data/synthetic/data_set.py", "data/video/check.py",
    "data/windows/skipped_videos.py", "distributed/processes.py",
    "distributed/workdir_lock.py", "jobs/review/server.py", "jobs/sweep.py",
    "report/document.py", "report/page.py", "training/checkpoint.py",
    "training/checksums.py",
    "training/metrics.py", "training/restore.py",
    "utils/compile_cache.py", "utils/recipes.py", "utils/text_files.py",
    "weights/backbone_folder.py", "weights/checkpoint_file.py",
    "weights/open_checkpoint.py"}


def test_no_other_module_reads_text_of_users():
    readers = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")
               if re.search(r"\.read_text\(|json\.loads?\(", path.read_text())}
    assert readers <= OWN_FILES


@pytest.mark.parametrize("text", ['{"a": 1}\n\0\0', '{"a":\n\0 1}'])
def test_nul_characters_are_named_with_their_line(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match="NUL characters, .* in line 2"):
        read_json(tmp_path / "a.json")


def test_a_second_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.json").write_text(2 * "\ufeff" + TEXT)
    assert read_text(tmp_path / "a.json") == TEXT


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_utf8_is_read_with_and_without_a_byte_order_mark(tmp_path, encoding):
    path = tmp_path / "a.json"
    path.write_text(TEXT, encoding=encoding)
    assert read_text(path) == TEXT
    assert read_json(path) == {"été": "saut à la perche"}


@pytest.mark.parametrize("encoding, text, name", [
    ("utf-16", TEXT, "UTF-16"), ("utf-16-le", TEXT, "UTF-16"),
    ("utf-16-be", TEXT, "UTF-16"), ("utf-16-le", "jump\n", "UTF-16"),
    ("utf-32", TEXT, "UTF-32"), ("utf-32-be", TEXT, "UTF-32"),
    ("cp1252", TEXT, "Windows-1252"), ("latin-1", "Größe\n", "Windows-1252"),
    ("cp1252", "décoller", "Windows-1252"),
    ("shift_jis", '{"ジャンプ": "走る"}', "Shift-JIS"),
    ("shift_jis", "跳躍\n", "Shift-JIS"), ("euc_jp", "ジャンプ\n", "EUC-JP"),
    ("cp1251", "прыжок\nБег\n", "Windows-1251"),
    ("gbk", "跳跃\n跑步\n", "GBK"), ("euc_kr", "점프\n달리기\n", "EUC-KR")])
@pytest.mark.parametrize("read", [read_text, read_json, read_lines])
def test_another_encoding_is_refused_by_name(tmp_path, encoding, text, name,
                                             read):
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(InputError, match=f"a.txt: is not UTF-8.* {name}: save"):
        read(path)


def test_a_damaged_character_is_named_with_its_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("grün\nweiß\nblau".encode().replace(b"\x9f", b""))
    path.write_bytes("aäöü\nweiß éèê".encode()[:-1] + b"\n")
    with pytest.raises(InputError, match="but for 1 characters.*line 2"):
        read_text(path)


@pytest.mark.parametrize("content, what", [
    (b"PK\x03\x04\xff\xfe", "not a text file but a damaged zip archive"),
    (b"\x1f\x8b\x08\xff", "not a text file but a gzip archive: unpack it"),
    (b"\x93NUMPY\x01\x00\xff", "not a text file but a NumPy array"),
    (b"\x80\x04\x95\xff", "not a text file but a Python pickle"),
    (b"\x89PNG\r\n\x1a\n", "not a text file but an image"),
    (bytes(99), "not a text file but a file of zeros"),
    (b"\x01\x02\xff\xfe\x00\x00\x03" * 9, "is no text")])
def test_what_is_no_text_is_named(tmp_path, content, what):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=f"a.json: {what}"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("text, message", [
    ("", "it is empty"), ("\ufeff \n", "it is empty"),
    ("<!DOCTYPE html><html>", "an HTML page"),
    ("version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ('{"a": 1,}', "line 1, column"), ("[" * 100_000, "not JSON that can"),
    ("[" + "1" * 5000 + "]", "not JSON that can"),
    ('{"a": 1}\n{"a": 2}', "line 2, column 1"),
    ("video,start,end\na,1,2\n", "not JSON but a text.*video,start,end"),
    ("{'a': 1}", "line 1, column 2")])
def test_what_is_no_json_is_refused_with_the_reason(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=f"a.json: .*{message}"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("text, key", [
    ('{"v1": 1, "v1": 1}', "v1"), ('{"a": {"v 1": [{"b": 1, "b": 2}]}}', "b"),
    ('[{"é": 1, "\\u00e9": 2}]', "é"), ('{"": 1, "a": 2, "": 3}', "")])
def test_a_key_twice_is_refused_at_every_level(tmp_path, text, key):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match="a.json: one object has the key "
                       + re.escape(json.dumps(key)) + " twice"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"x": [\n{"v": 1,\n"v": 2}]}')
    with pytest.raises(InputError, match=r"twice \(lines 2 and 3\)"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("text, message", [
    ("<!DOCTYPE html><html>", "an HTML page"),
    ("version https://git-lfs.github.com/spec/v1\n", "git lfs pull")])
def test_what_stands_for_a_text_is_not_read_as_one(tmp_path, text, message):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(InputError, match=f"a.txt: not a text.*{message}"):
        read_lines(tmp_path / "a.txt")


def test_lines_are_read_without_blanks_at_their_ends(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeff a b \r\n\r\n# c\r\n\ufeffde\u0301\n".encode())
    assert read_lines(path) == [(1, "a b"), (3, "# c"), (4, "dé")]


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none.txt"):
        with pytest.raises(InputError, match="cannot be read"):
            read_text(path)


def test_a_folder_in_place_of_a_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\): "
                       "name a file in it"):
        read_text(tmp_path)
    with pytest.raises(InputError, match=r"cannot be read \(No such file or "
                       r"directory\): check the path"):
        read_text(tmp_path / "nothing")
