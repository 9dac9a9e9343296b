import errno
import json
import os

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from toy import ToyBattery

from iquitos_rl.agents.policy_file import PolicySpec, apply_policy, load_policy, save_policy
from iquitos_rl.envs.gym.adapter import as_vector
from iquitos_rl.envs.spaces import ActionSpace, ObservationPart, ObservationSpace
from iquitos_rl.errors import UserError


class Config(BaseModel):
    hidden: tuple[int, ...] = (4, 4)
    gamma: float = 0.99


SPEC = {"obs_dim": 3, "environment": {"observation_names": ["año", "b", "c"], "low": [0.0, 1.5, -2.0]}}


def tensors():
    g = torch.Generator().manual_seed(0)
    return {"actor.weight": torch.randn(4, 3, generator=g).T, "log_alpha": torch.tensor(0.5, requires_grad=True)}


def save(folder, **changes):
    save_policy(folder, **{"algorithm": "sac", "config": Config(), "spec": SPEC, "tensors": tensors(), **changes})


def test_comes_back_as_it_was(tmp_path):
    save(tmp_path / "new" / "policy")
    meta, loaded = load_policy(str(tmp_path / "new" / "policy"))
    assert sorted(os.listdir(tmp_path / "new" / "policy")) == ["policy.json", "policy.safetensors"]
    assert meta["algorithm"] == "sac"
    assert Config(**meta["config"]) == Config()
    assert meta["spec"] == SPEC
    assert loaded.keys() == tensors().keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors().items())


def test_missing_files(tmp_path):
    with pytest.raises(UserError, match=r"policy\.json cannot be read"):
        load_policy(tmp_path)
    save(tmp_path)
    (tmp_path / "policy.safetensors").unlink()
    with pytest.raises(UserError, match=r"policy\.safetensors cannot be read"):
        load_policy(tmp_path)


@pytest.mark.parametrize("position", [3, 60, -1])
def test_any_changed_byte_of_the_tensors_is_noticed(tmp_path, position):
    save(tmp_path)
    path = tmp_path / "policy.safetensors"
    contents = bytearray(path.read_bytes())
    contents[position] ^= 1
    path.write_bytes(contents)
    with pytest.raises(UserError, match="sha256 differs"):
        load_policy(tmp_path)


def test_truncated_tensors(tmp_path):
    save(tmp_path)
    path = tmp_path / "policy.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(UserError, match="sha256 differs"):
        load_policy(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "format_version is 99"),
        ({"format_version": "1"}, "'format_version' is missing or not of type int"),
        ({"algorithm": None}, "'algorithm'"),
        ({"spec": []}, "'spec'"),
        ({"tensors_sha256": 1}, "'tensors_sha256'"),
    ],
)
def test_wrong_descriptions(tmp_path, change, message):
    save(tmp_path)
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_policy(tmp_path)


@pytest.mark.parametrize("text", [b"{", b"[]", b"\xff\xfe", b""])
def test_broken_descriptions(tmp_path, text):
    save(tmp_path)
    (tmp_path / "policy.json").write_bytes(text)
    with pytest.raises(UserError, match=r"policy\.json"):
        load_policy(tmp_path)


def test_what_is_not_json_is_refused_before_anything_is_written(tmp_path):
    for value in (float("nan"), torch.zeros(2), {1, 2}):
        with pytest.raises(UserError, match="cannot be written as JSON"):
            save(tmp_path / "policy", spec={"environment": {"low": value}})
    assert not (tmp_path / "policy").exists()


def test_a_full_disk_leaves_the_old_policy(tmp_path, monkeypatch):
    save(tmp_path)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="No space left"):
            save(tmp_path, tensors={"log_alpha": torch.tensor(9.0)})
    assert load_policy(tmp_path)[1].keys() == tensors().keys()
    assert sorted(os.listdir(tmp_path)) == ["policy.json", "policy.safetensors"]


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "policy").write_text("not a folder")
    with pytest.raises(UserError, match="cannot be written"):
        save(tmp_path / "policy")


def test_a_save_cut_off_between_the_files_is_noticed(tmp_path):
    save(tmp_path / "a")
    save(tmp_path / "b", tensors={"log_alpha": torch.tensor(9.0)})
    (tmp_path / "b" / "policy.safetensors").replace(tmp_path / "a" / "policy.safetensors")
    with pytest.raises(UserError, match="sha256 differs"):
        load_policy(tmp_path / "a")


def spec(**changes):
    values = {"obs_dim": 2, "action_dim": 2, "action_low": [-1.0, 0.0], "action_high": [1.0, 10.0]}
    return PolicySpec(**{**values, "action_mask_columns": None, "environment": {}, **changes})


def test_spec_of_an_environment():
    env = as_vector(ToyBattery())
    box = {"low": [-1.0], "high": [1.0]}
    assert PolicySpec.of(env) == PolicySpec(
        obs_dim=4,
        action_dim=1,
        action_low=[-1],
        action_high=[1],
        action_mask_columns=None,
        environment={},
        obs_space=ObservationSpace(parts=(ObservationPart(shape=(4,), **box),)),
        action_space=ActionSpace(kind="box", shape=(1,), **box),
    )
    env.action_mask_columns, env.policy_spec = torch.tensor([3]), {"names": ["a"]}
    found = PolicySpec.of(env)
    assert (found.action_mask_columns, found.environment) == ([3], {"names": ["a"]})
    with pytest.raises(UserError, match=r"action_mask_columns is \[3\], the saved policy was trained with None"):
        found.must_match(spec(obs_dim=4, action_dim=1, action_low=[-1.0], action_high=[1.0]))


@pytest.mark.parametrize("shape", [(2,), (1, 2), (5, 2)])
def test_same_kind_in_and_out(shape):
    def act(rows):
        assert rows.shape == (max(1, len(shape) - 1 and shape[0]), 2)
        assert rows.dtype == torch.float32
        return torch.stack([torch.full((len(rows),), -1.0), torch.full((len(rows),), 3.0)], 1)

    for obs in (np.zeros(shape), np.zeros(shape, np.float32), torch.zeros(shape), torch.zeros(shape).double()):
        action = apply_policy(act, obs, spec())
        assert type(action) is type(obs)
        assert tuple(action.shape) == shape
        assert action.reshape(-1, 2)[0].tolist() == [-1.0, 10.0], "cut to the range, then stretched to the bounds"
    assert apply_policy(act, np.zeros(shape), spec()).dtype == np.float32


def test_bad_observations_are_refused():
    for obs in (np.zeros(3), np.zeros((2, 3)), np.zeros((1, 1, 2)), np.float32(0)):
        with pytest.raises(UserError, match="must have shape"):
            apply_policy(lambda rows: rows, obs, spec())
    with pytest.raises(UserError, match="column 1 is not a finite number"):
        apply_policy(lambda rows: rows, np.array([[0, 0], [0, np.nan]]), spec())
