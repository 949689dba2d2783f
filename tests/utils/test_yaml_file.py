"""YAML is read as JSON is: one key twice is an error."""

import pytest

from losa_jax.errors import InputError
from losa_jax.utils.yaml_file import read_yaml


@pytest.mark.parametrize("text, key, lines", [
    ("a: 1\nb: 2\na: 3\n", "a", "1 and 3"),
    ("model:\n  k: 1\n  sub: [{x: 1}, {x: 1, x: 2}]\n", "x", "3 and 3"),
    ("a: &a\n  k: 1\n  k: 1\nb: *a\n", "k", "2 and 3")])
def test_a_key_twice_is_refused_with_its_lines(tmp_path, text, key, lines):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=(
            f"a.yaml: one mapping has the key '{key}' twice .lines {lines}")):
        read_yaml(path)


def test_sound_documents_are_read(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("\ufeffa: &a {k: 1, l: 2, m: 3}\nb: {<<: *a, k: 2}\n"
                    "c: [[{d: {<<: [*a, *a]}}], *a, *a]\nk: 1\n",
                    encoding="utf-8")
    content = read_yaml(path)
    assert content["b"] == {"k": 2, "l": 2, "m": 3}
    assert content["c"][1:] == [content["a"]] * 2
    path.write_text("")
    assert read_yaml(path) is None


@pytest.mark.parametrize("text, message", [
    ("a: [1", "not YAML that can be read"), ("a: 2020-99-99", "not YAML"),
    ("? [1]\n: 2\n", "not YAML"), ("!!python/object:os.system x", "not YAML"),
    ("[" * 5000, "not YAML"), ("a: 1\n---\nb: 2\n", "not YAML"),
    ("version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ("<html>", "HTML page")])
def test_what_is_no_yaml_is_refused(tmp_path, text, message):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=f"(?s)a.yaml: .*{message}"):
        read_yaml(path)
