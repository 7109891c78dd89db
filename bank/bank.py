"""Keep an unfinished run of p2_gan/train.py small, and make its checkpoint again.

    python3 bank/bank.py keep RUN_DIR KEPT        # half-precision weights, Adam's second moments as powers of two
    python3 bank/bank.py restore KEPT RUN_DIR     # then: train.py ... --out-dir RUN_DIR --resume

The moments have forgotten this after 100 steps, the EMA (which starts from the generator) after 2 epochs.
"""
import json
import sys
from pathlib import Path

import torch


def keep(run_dir, kept):
    saved = torch.load(Path(run_dir, "checkpoint.pt"), weights_only=True)
    parts = saved["parts"]
    for name in ("generator", "discriminator"):
        parts[name] = {k: v.half() if v.is_floating_point() else v for k, v in parts[name].items()}
    for name in ("g_optimizer", "d_optimizer"):
        for state in parts[name]["state"].values():
            del state["exp_avg"]  # beta1 is 0: the next step replaces it
            state["exp_avg_sq"] = state["exp_avg_sq"].log2().round().clamp(-126, 127).to(torch.int8)
    parts["ema"] = {k: v for k, v in parts["ema"].items() if not isinstance(v, dict)}
    torch.save({**saved, "config": json.loads(Path(run_dir, "config.json").read_text())}, kept)


def restore(kept, run_dir):
    saved = torch.load(kept, weights_only=True)
    parts = saved["parts"]
    for name in ("generator", "discriminator"):
        parts[name] = {k: v.float() if v.is_floating_point() else v for k, v in parts[name].items()}
    for name in ("g_optimizer", "d_optimizer"):
        for state in parts[name]["state"].values():
            state["exp_avg_sq"] = torch.exp2(state["exp_avg_sq"].float())
            state["exp_avg"] = torch.zeros_like(state["exp_avg_sq"])
    parts["ema"] = parts["ema"] | {"state": parts["generator"]}
    Path(run_dir).mkdir(parents=True)
    Path(run_dir, "config.json").write_text(json.dumps(saved.pop("config"), indent=1) + "\n")
    torch.save(saved, Path(run_dir, "checkpoint.pt"))


{"keep": keep, "restore": restore}[sys.argv[1]](*sys.argv[2:])
