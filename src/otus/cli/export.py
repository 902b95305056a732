"""The command `otus export-onnx`."""

import argparse
from pathlib import Path

_DESCRIPTION = """Write the network of one fold as an ONNX file, for programs without torch, and compare its logits with
those of the network on random input and on a made-up sound. What has to be known to make the input is in the file's
metadata. Needs the extra `onnx`.
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser of `otus`."""
    export = commands.add_parser("export-onnx", help="write a trained network as ONNX", description=_DESCRIPTION)
    export.add_argument("folder", type=Path, help="a fold of a model, e.g. results/models/grouped-crnn/fold1")
    export.add_argument("-o", "--out", type=Path, required=True, help="file to write; one that is there is replaced")
    export.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Export the network and print how far its logits are from those of the file."""
    from otus.errors import DataError

    weights, card_path = options.folder / "model.safetensors", options.folder / "card.json"
    if not (weights.is_file() and card_path.is_file()):
        raise DataError(
            f"{options.folder}: has no model.safetensors and card.json; name a folder like results/models/MODEL/fold1."
        )
    import torch

    from otus.models.card import load_model
    from otus.models.onnx import export_onnx

    network, card = load_model(weights, card_path, torch.device("cpu"))
    exported = export_onnx(network, card, options.out)
    size_mb = options.out.stat().st_size / 1e6
    print(f"{options.out}: {size_mb:.2f} MB, features {exported.features} to logits {exported.logits}")
    shown = ", ".join(f"{value:.1e} ({kind})" for kind, value in exported.differences.items())
    print(f"largest difference of logits from the network's own: {shown}")
    return 0
