"""Weights files: {"model": half-precision tensors, "config": plain values}. Nothing that is pickled is loaded."""
import zipfile
from pathlib import Path

import torch

from common.files import replace_file


def save_weights(path, state, config):
    """Write a state_dict, its floats in half precision, and the settings of its network and training."""
    model = {k: v.half().cpu() if v.is_floating_point() else v.cpu() for k, v in state.items()}
    replace_file(path, lambda file: torch.save({"model": model, "config": config}, file))


def load_weights(path):
    """A file's state_dict, in float32, and its config; exits with one line where it is absent or damaged."""
    if not Path(path).exists():
        raise SystemExit(f"weights not found: {path}")
    saved = torch.load(path, map_location="cpu", weights_only=True) if zipfile.is_zipfile(path) else {}
    if "model" not in saved:
        raise SystemExit(f"{path} is damaged or no weights file; if it came with the repository, delete it: "
                         "the wrapper downloads it again")
    return {k: v.float() if v.is_floating_point() else v for k, v in saved["model"].items()}, saved["config"]


def load_model(path, build):
    """The network build(config) with the weights of a file, in eval mode, and the config."""
    state, config = load_weights(path)
    try:
        net = build(config)
        net.load_state_dict(state)
    except (KeyError, RuntimeError) as error:  # torch lists the layers that differ
        raise SystemExit(f"{path} does not fit this network, which has to be trained anew: {error}")
    return net.to("cpu", memory_format=torch.channels_last).eval(), config
