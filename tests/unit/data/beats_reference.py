"""Make beats_reference.npz: what an independent implementation of BEATs (openbeats 0.1.1) makes of small checkpoints.

Needs `pip install openbeats==0.1.1` (with torch and torchaudio) in an environment of its own; then, in tests/unit:
    python data/beats_reference.py
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from openbeats.beats_encoder import BeatsEncoder

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from beats_checkpoint import VARIANTS, sound, write_checkpoint  # noqa: E402

tokens = {}
for name in ("as_published", "otherwise"):  # the fine-tuned one has the weights of the first, and a classifier
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "small.pt"
        write_checkpoint(path, VARIANTS[name])
        encoder = BeatsEncoder(1, beats_ckpt_path=str(path)).eval()
        heard = sound()
        tokens[name] = encoder(heard, torch.full((len(heard),), heard.shape[1]))[0].numpy()
        print(name, tokens[name].shape, float(np.abs(tokens[name]).mean()))
np.savez_compressed(HERE / "beats_reference.npz", **tokens)
