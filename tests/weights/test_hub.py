"""Checkpoints by name, from a server on loopback: never the real network."""

import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import load_file, save_file

from losa_jax import convert
from losa_jax.errors import InputError
from losa_jax.models.backbones.videomae import VideoMaeSpec
from losa_jax.weights import backbone_folder, hub
from losa_jax.weights.name_table import source_tensors
from tests.weights import test_stored_digests, test_videoprism, test_vjepa2
from tests.weights.hub_server import TOKEN, serve

NAME = "owner/tiny"
# Files of a repository that conversion does not need.
OTHER = {"README.md": b"A card", "modeling.py": b"raise SystemExit",
         "optimizer.pt": b"no weights", "training_args.bin": b"none"}


@pytest.fixture
def server(monkeypatch, tmp_path):
    with serve() as running:
        _use(monkeypatch, running.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH",
                            str(tmp_path / "no_token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.chdir(tmp_path)
        yield running
        huggingface_hub.close_session()


def _use(monkeypatch, url):
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE",
                        url + "/{repo_id}/resolve/{revision}/{filename}")
    huggingface_hub.close_session()


def _no_server(monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        _use(monkeypatch, f"http://127.0.0.1:{unused.getsockname()[1]}")


def _files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def videomae(tmp_path):
    folder = tmp_path / "videomae"
    folder.mkdir()
    test_stored_digests._hugging_face(folder)
    return _files(folder)


@pytest.fixture
def videoprism(tmp_path):
    folder = tmp_path / "videoprism"
    folder.mkdir()
    np.savez(folder / "flax_tiny.npz", **source_tensors(
        test_videoprism.SPEC, test_vjepa2._params(test_videoprism.SPEC)))
    return _files(folder)


@pytest.fixture
def vjepa2(tmp_path):
    backbone_folder.save_source(
        tmp_path / "model.safetensors", test_vjepa2.SPEC,
        test_vjepa2._params(test_vjepa2.SPEC))
    return {"model.safetensors": (tmp_path / "model.safetensors").read_bytes()}


@pytest.fixture
def videomaev2(tmp_path):
    """As OpenGVLab's repositories, whose code defines the model."""
    spec = VideoMaeSpec(width=384, depth=1, heads=6, mlp_width=8, patch=16,
                        clip_frames=16, image_size=(224, 224))
    save_file({f"model.{name}": array for name, array in source_tensors(
        spec, test_vjepa2._params(spec)).items()}, tmp_path / "weights")
    return {"model.safetensors": (tmp_path / "weights").read_bytes(),
            "config.json": b'{"model_type": "VideoMAEv2_Base", "auto_map": '
                           b'{"AutoModel": "modeling.VideoMAEv2"}}'}


@pytest.mark.parametrize("family, fetched", [
    ("videomae", {"config.json", "model.safetensors"}),
    ("videomaev2", {"config.json", "model.safetensors"}),
    ("vjepa2", {"model.safetensors"}), ("videoprism", {"flax_tiny.npz"})])
def test_a_name_is_converted_as_its_files_would_be(
        server, request, tmp_path, capsys, family, fetched):
    files = request.getfixturevalue(family)
    if family == "videoprism":  # the suffix decides only between several
        commit = server.add(NAME, files | {"README.md": b"A card"})
    else:
        commit = server.add(NAME, files | OTHER, license="cc-by-nc-4.0")
    assert convert.main([NAME, "--output=named", "--verify"]) == 0
    out = capsys.readouterr().out
    license = "not stated" if family == "videoprism" else "cc-by-nc-4.0"
    assert f"{NAME}: commit {commit}, license {license}; " in out
    assert "MiB to download" in out and "tensors equal" in out
    assert server.fetched() == fetched
    facts = json.loads((tmp_path / "named/backbone.json").read_text())
    assert facts.get("license", "not stated") == license
    spec, arrays, info = backbone_folder.open_backbone("named")
    assert info.source == f"{NAME}@{commit}"
    local = tmp_path / "local"
    local.mkdir()
    for name in fetched:
        (local / name).write_bytes(files[name])
    assert convert.main([str(local), "--output=from_files"]) == 0
    from_files = backbone_folder.open_backbone("from_files")
    assert from_files[0] == spec
    assert from_files[2].fingerprint == info.fingerprint


@pytest.mark.shared
def test_hugging_faces_vjepa2_is_fetched_by_name(server, shared_dir, capsys):
    server.add(NAME, _files(shared_dir / "data/parity/hf_vjepa2_tiny"),
               license="other", license_name="somebody's own")
    assert convert.main([NAME, "--output=out"]) == 0
    assert "license somebody's own; config.json, model.safetensors: " in (
        capsys.readouterr().out)


def test_inspect_fetches_and_writes_nothing_else(server, videomae, tmp_path,
                                                 capsys):
    server.add(NAME, videomae)
    before = set(tmp_path.iterdir())
    assert convert.main([NAME, "--inspect"]) == 0
    assert "what it is: 2 blocks of width 12" in capsys.readouterr().out
    assert set(tmp_path.iterdir()) - before == {tmp_path / "cache"}


def test_what_is_in_the_cache_is_not_fetched_again(server, videomae, capsys):
    server.add(NAME, videomae)
    assert convert.main([NAME, "--inspect"]) == 0
    server.requests.clear()
    assert convert.main([NAME, "--inspect"]) == 0
    assert ", 0.0 MiB to download" in capsys.readouterr().out
    assert server.fetched() == set()


def test_a_revision_is_a_branch_a_tag_or_a_commit(server, videomae, vjepa2,
                                                  capsys):
    first = server.add(NAME, videomae)
    server.commits[NAME].update({"v1": first, "refs/pr/3": first})
    for revision in ("main", "v1", "refs/pr/3", first):
        path, facts = hub.download(NAME, revision)
        assert first in path.parts and facts["source"] == f"{NAME}@{first}"
    second = server.add(NAME, vjepa2)
    assert hub.download(NAME)[1]["source"] == f"{NAME}@{second}"
    with pytest.raises(InputError, match="no revision v2: give --revision a "
                       f"branch, tag or commit of {server.url}/{NAME}"):
        hub.download(NAME, "v2")


def test_weights_in_parts_are_fetched_with_their_index(server, tmp_path,
                                                       videomae):
    (tmp_path / "whole").write_bytes(videomae.pop("model.safetensors"))
    state = load_file(tmp_path / "whole")
    held = {f"model-0000{i}-of-00002.safetensors": sorted(state)[i - 1::2]
            for i in (1, 2)}
    for part, names in held.items():
        save_file({name: state[name] for name in names}, tmp_path / part)
        videomae[part] = (tmp_path / part).read_bytes()
    index = "model.safetensors.index.json"
    videomae[index] = json.dumps({"weight_map": {
        name: part for part, names in held.items() for name in names}}).encode()
    server.add(NAME, videomae | {"model.fp16.safetensors": b"another"})
    assert convert.main([NAME, "--output=out", "--verify"]) == 0
    assert server.fetched() == {"config.json", index, *held}


@pytest.mark.parametrize("drops, status", [(1, 0), (99, 1)])
def test_a_lost_connection_is_resumed(server, videomae, capsys, monkeypatch,
                                      drops, status):
    monkeypatch.setattr("time.sleep", lambda _: None)
    # What arrived of a chunk is fetched again: 10 MiB by default.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    server.add(NAME, videomae)
    server.drops["model.safetensors"] = drops
    # The later tries of a server that always hangs up fetch nothing new.
    if status:
        videomae["model.safetensors"] = b""
        server.repositories[NAME] = videomae | {"model.safetensors": b"12"}
    assert convert.main([NAME, "--output=out"]) == status
    size = len(videomae["model.safetensors"])
    ranges = [start for method, path, start in server.requests
              if method == "GET" and path.endswith("model.safetensors")]
    if not status:
        assert ranges == [None, f"bytes={size // 2 // 1024 * 1024}-"]
    else:
        error = capsys.readouterr().err
        assert "the connection was lost" in error
        assert "start the same command again" in error


def test_the_cache_serves_without_a_network(server, videomae, monkeypatch,
                                            capsys):
    commit = server.add(NAME, videomae, license="mit")
    assert convert.main([NAME, "--output=out"]) == 0
    capsys.readouterr()
    _no_server(monkeypatch)
    reasons = [f"{constants.ENDPOINT} cannot be reached"]
    for flags in ([], [f"--revision={commit}"], ["--revision=main"]):
        assert convert.main([NAME, "--output=out", *flags]) == 0
        assert (f"{NAME}: commit {commit} from the cache, because {reasons[0]}"
                in capsys.readouterr().out)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert convert.main([NAME, "--output=out"]) == 0
    assert "because HF_HUB_OFFLINE is set" in capsys.readouterr().out
    source = backbone_folder.open_backbone("out")[2].source
    assert source == f"{NAME}@{commit}"


def test_the_cache_serves_while_the_server_is_down(server, videomae, capsys):
    server.add(NAME, videomae)
    hub.download(NAME)
    server.status = 503
    assert "@" in hub.download(NAME)[1]["source"]
    assert "cannot be reached" in capsys.readouterr().out


@pytest.mark.parametrize("revision", [None, "v1"])
def test_no_network_and_no_copy_is_one_message(server, monkeypatch, revision):
    _no_server(monkeypatch)
    with pytest.raises(InputError) as caught:
        hub.download(NAME, revision)
    message = str(caught.value)
    assert message.startswith(
        f"{NAME}: no such file or folder, and as a name of the Hugging Face "
        f"hub it cannot be fetched: {constants.ENDPOINT} cannot be reached (")
    assert message.endswith("does not hold " + (
        "revision v1 of it" if revision else "it"))


def test_an_incomplete_copy_in_the_cache_is_no_checkpoint(
        server, videomae, monkeypatch):
    server.add(NAME, videomae)
    path, _ = hub.download(NAME)
    path.unlink()
    _no_server(monkeypatch)
    with pytest.raises(InputError, match="no weights that can be converted.*but"
                       " config.json(.|\n)*the copy in the cache"):
        hub.download(NAME)


@pytest.mark.parametrize("name, message", [
    ("owner/unknown", "owner/unknown: no such file or folder, and no model of "
     ".* that you may see: check the name; if the model is private, log in"),
    ("owner/data", "owner/data: is a data set .*/datasets/owner/data"),
    ("owner/gated", "owner/gated: is gated, and you have no access yet: accept "
     "its terms at .*/owner/gated, and log in with `hf auth login` or set"),
    ("owner/a--b", "owner/a--b: no such file or folder, and no name of the"),
    ("owner/several", "holds several checkpoints: fetch the one you want with "
     "`hf download owner/several FILE`, .*\n  a/b.pth\n  a/s.pth$"),
    ("owner/text", "holds no weights that can be converted .*, but README.md, "
     "tf_model.h5: name another repository"),
    ("owner/empty", "but no file: name another")])
def test_what_cannot_be_fetched_is_one_message(server, videomae, capsys, name,
                                               message):
    server.add("owner/gated", videomae)
    server.gated, server.datasets = {"owner/gated"}, {"owner/data"}
    server.add("owner/several", {"a/b.pth": b"", "a/s.pth": b"", "x.bin": b""})
    server.add("owner/text", {"tf_model.h5": b"", "README.md": b""})
    server.add("owner/empty", {})
    assert convert.main([name, "--output=out"]) == 1
    error = capsys.readouterr().err
    assert re.search(message, error) and error.startswith(f"error: {name}: ")
    assert not server.fetched()


@pytest.mark.parametrize("token, works", [(TOKEN, True), ("hf_wrong", False)])
def test_a_gated_model_is_fetched_with_the_users_token(
        server, videomae, monkeypatch, capsys, token, works):
    server.add(NAME, videomae)
    server.gated = {NAME}
    monkeypatch.setenv("HF_TOKEN", token)
    assert convert.main([NAME, "--output=out"]) == (0 if works else 1)
    if not works:
        error = capsys.readouterr().err
        assert "answers with status 401 (Invalid credentials" in error
        assert "log in with `hf auth login` or set HF_TOKEN, with a valid" in (
            error)


@pytest.mark.parametrize("page", [b"<html>Log in</html>", b"[]", b"{}"])
def test_another_server_is_not_taken_for_the_hub(server, page):
    server.page = page
    with pytest.raises(InputError, match=f"{server.url} does not answer as the "
                       "Hugging Face hub does .*check HF_ENDPOINT"):
        hub.download(NAME)


def test_a_full_disk_is_named_before_and_while_fetching(
        server, videomae, monkeypatch):
    server.add(NAME, videomae)
    usage = shutil.disk_usage("/")._replace(free=100)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(InputError, match="needs .* MiB in .*cache, whose "
                           "disk has 0.0 MiB free: make room, or set HF_HOME"):
            hub.download(NAME)
    assert not server.fetched()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(hub, "hf_hub_download", full)
    with pytest.raises(InputError, match=r"cache: cannot be written \(No space "
                       r"left on device\): make room, or set HF_HOME"):
        hub.download(NAME)


def test_a_repository_that_changes_meanwhile_is_refused(server, videomae,
                                                        monkeypatch):
    server.add(NAME, videomae)
    fetch = hub.hf_hub_download

    def change(*arguments, **options):
        server.add(NAME, videomae | {"new": b""})
        return fetch(*arguments, **options)

    monkeypatch.setattr(hub, "hf_hub_download", change)
    with pytest.raises(InputError, match="has changed while it was fetched"):
        hub.download(NAME)


@pytest.mark.parametrize("files, chosen", [
    (["model.safetensors", "pytorch_model.bin", "a.npz"], "model.safetensors"),
    (["pytorch_model.bin", "a.safetensors"], "pytorch_model.bin"),
    (["a.pth", "b.npz"], "b.npz"), (["a.pt", "b.pth"], "b.pth"),
    (["in/a.pt", "in/config.json", "config.json"], "in/config.json in/a.pt"),
    (["epoch_9.pth.tar", "x.yaml"], "epoch_9.pth.tar"),
    (["model.safetensors.index.json", "model-00001-of-00002.safetensors"],
     "model-00001-of-00002.safetensors")])
def test_one_of_several_formats_is_chosen_in_order(files, chosen):
    assert hub.choose_files(NAME, files) == chosen.split()


def test_the_command_reads_the_environment_and_needs_no_xet(
        server, videomae, tmp_path):
    commit = server.add(NAME, videomae)
    environment = {**os.environ, "HF_ENDPOINT": server.url,
                   "HF_HOME": str(tmp_path / "home"),
                   "HF_HUB_DISABLE_XET": "1",
                   "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error::ResourceWarning", "-m",
               "losa_jax.convert", NAME, "--output=out"]
    done = subprocess.run(command, env=environment, capture_output=True,
                          text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert f"commit {commit}, license not stated" in done.stdout
    done = subprocess.run(command, capture_output=True, text=True,
                          env=environment | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0
    assert "from the cache, because HF_HUB_OFFLINE is set" in done.stdout
