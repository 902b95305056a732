"""What OpenSoundscape's CNN.predict takes on a recording, with random weights; benchmarks/throughput.py starts it.

    PYTHON benchmarks/opensoundscape_predict.py recording.wav --threads 1 --repeats 3 --max-pool 1

Runs in an environment of its own (pip install opensoundscape==0.13.2 torch==2.11.0 torchaudio==2.11.0
torchvision==0.26.0), which Otus is not part of. Windows of 0.4 s every 0.05 s, spectrograms of 128 x 17, a resnet18
with or without its max pooling, batches of 64, one process. Prints one JSON object.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import time

os.environ["WANDB_MODE"] = "disabled"

import soundfile
import torch
from opensoundscape import CNN
from opensoundscape.ml.cnn_architectures import resnet18


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-pool", type=int, choices=[0, 1], default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network = resnet18(num_classes=2, weights=None, num_channels=1)
    if not options.max_pool:
        network.maxpool = torch.nn.Identity()
    model = CNN(network, classes=["noise", "target"], sample_duration=0.4, sample_rate=48_000, channels=1)
    model.device = options.device
    model.preprocessor.height, model.preprocessor.width = 128, 17
    cpu_s, wall_s = [], []
    for _ in range(options.repeats):
        began = time.process_time(), time.perf_counter()
        scores = model.predict([options.recording], clip_step=0.05, batch_size=64, num_workers=0, progress_bar=False)
        cpu_s.append(time.process_time() - began[0])
        wall_s.append(time.perf_counter() - began[1])
    found = {
        "audio_s": soundfile.info(options.recording).duration,
        "windows": len(scores),
        "cpu_s": statistics.median(cpu_s),
        "wall_s": statistics.median(wall_s),
        "repeats": options.repeats,
        "opensoundscape": importlib.metadata.version("opensoundscape"),
        "torch": torch.__version__,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
