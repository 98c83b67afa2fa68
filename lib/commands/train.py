"""`python -m lib train --config JSON --record FILE`: train networks into the cache, as the Snakefile does."""

import argparse
import json
from pathlib import Path

from lib.system import files
from lib.system.progress import say
from lib.training.cache import trained
from lib.training.config import TrainConfig


def main(given: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lib train", description="Train networks into the cache, one after the other."
    )
    parser.add_argument("--config", required=True, help="the fields of TrainConfig, as JSON, or a list of such")
    parser.add_argument("--record", required=True, type=Path, help="JSON file to write when the networks are there")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args(given)
    try:
        given = json.loads(arguments.config)
        configs = [TrainConfig.model_validate_json(json.dumps(c)) for c in (given if isinstance(given, list) else [given])]
        networks = [trained(c, device_name=arguments.device) for c in configs]
        record = [{"network": n.path.stem, "config": n.config.model_dump()} for n in networks]
        files.write_json(arguments.record, {"networks": record})
    except (ValueError, RuntimeError, OSError) as error:
        say(f"error: {error}")
        return 1
    return 0
