"""Where a training run stands after an epoch: network, optimiser and history in one safetensors file, nothing pickled."""

import json
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from lib.system import files
from lib.system.progress import say


def contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As safetensors stores them: each in memory of its own, also where a network ties weights or cuts them out of one.

    Reading gives every name its values; a network that ties them ties them again when it is built.
    """
    found: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        found[name] = own.clone() if own.untyped_storage().data_ptr() in taken else own
        taken.add(own.untyped_storage().data_ptr())
    return found


def write(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, history: list[dict[str, float]]) -> None:
    """Store network, optimiser and history so that `resume` finds them whole or not at all."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": torch.as_tensor(v) for k, v in state.items() if v is not None}
    tensors = contiguous(tensors)
    record = {"history": json.dumps(history), "digest": _digest(tensors)}
    files.write_bytes(path, safetensors.torch.save(tensors, record))


def _digest(tensors: dict[str, Tensor]) -> str:
    """Of names and bytes, for a file whose metadata must hold the digest of the rest."""
    return files.digest(b"".join(k.encode() + tensors[k].numpy().tobytes() for k in sorted(tensors)))


def resume(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> list[dict[str, float]]:
    """Restore the last finished epoch and return its history; an empty one where there is none or it is damaged."""
    if not path.exists():
        return []
    try:
        with safetensors.safe_open(path, "pt") as file:
            record = file.metadata()
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a dict)
        if _digest(tensors) != record["digest"]:
            raise ValueError("its digest does not match")
        history = json.loads(record["history"])
    except (ValueError, KeyError, TypeError, RuntimeError, safetensors.SafetensorError) as error:
        say(f"{path.name} is damaged ({error}); starting from the first epoch")
        path.unlink()
        return []
    # from here on the content is what `write` wrote under this key, so it fits
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    state: dict[int, dict[str, Tensor]] = {}
    for k, v in tensors.items():
        if k.startswith("optimizer."):
            _, i, name = k.split(".", 2)
            state.setdefault(int(i), {})[name] = v
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    return history
