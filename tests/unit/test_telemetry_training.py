"""What a training tells its journal."""

import torch
from torch import nn
from training_toys import CPU, Script, line, settings

from otus.devices import gpu_uuid
from otus.telemetry import open_journal
from otus.telemetry.summary import read_journal
from otus.training.loop import train_model


class Hungry(nn.Module):
    """A line for which memory suffices for three examples at once."""

    def __init__(self):
        super().__init__()
        self.line = line()

    def forward(self, x):
        if len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.line(x)


def test_a_training_tells_its_plan_its_epochs_and_its_retreats(tmp_path):
    path = tmp_path / "telemetry" / "m.jsonl"
    with open_journal(path, stage="train", rule="train_model", log=print) as journal:
        trained = train_model(
            Hungry(),
            Script([0.1, 0.3]),
            settings=settings(3, validate_every=2),
            seed=1,
            device=CPU,
            resume_path=tmp_path / "member2.pt",
            digest="d",
            stop=lambda: False,
            progress=print,
            journal=journal,
        )
    plan, *retreats, first, second, third = read_journal(path)[1:-1]
    assert (plan["event"], plan["item_id"], plan["items_done"], plan["items_total"]) == ("plan", "member2", 0, 3)
    assert [(e["event"], e["batch_size"]) for e in retreats] == [("oom_backoff", 4), ("oom_backoff", 2)]
    epochs = (first, second, third)
    assert [(e["event"], e["item_id"], e["items_done"]) for e in epochs] == [("epoch", "member2", i) for i in (1, 2, 3)]
    assert [e["loss"] for e in epochs] == [round(r["loss"], 4) for r in trained.records]
    assert [e.get("detection") for e in epochs] == [None, 0.1, 0.3], "not every epoch is validated"
    assert all(e["wall_s"] >= 0 for e in epochs)


def test_the_cpu_has_no_uuid_and_a_gpu_that_of_torch(monkeypatch):
    assert gpu_uuid(CPU) is None

    class Properties:
        uuid = "aaaa-1"

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties())
    assert gpu_uuid(torch.device("cuda")) == "aaaa-1"
