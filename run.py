"""python run.py domain=finance algo=ppo: compose the configuration, build the parts, run the experiment."""

import os
import sys
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from framework.cli import prepare
from framework.errors import UserError


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    """One run; Hydra calls it once for each job of a sweep."""
    from framework.assemble import assemble  # heavy imports only once the command line is known to be sound
    from framework.checkpoint import left_by
    from framework.experiment import Interrupted

    hydra_config = HydraConfig.get()
    single = hydra_config.mode == RunMode.RUN
    try:
        directory, sweep = Path(hydra_config.runtime.output_dir), None if single else hydra_config.sweep.dir
        before = None if single else left_by(directory)  # by the same job, of a sweep that is begun again
        if before:
            config.resume = str(directory)
        experiment, run = assemble(config, directory, hydra_config.runtime.choices, hydra_config.overrides.task, sweep)
        try:
            if done := before and before["finished"]:
                run.check_against(before, directory, whole=True)
                print(f"finished before: {directory}", flush=True)
            holds = done or experiment.run(run)
        finally:
            run.tracker.close()
    except UserError as error:
        _end(_complain(error), single)
    except Interrupted as stopped:
        print(f"stopped; nothing is lost. Go on with:\n  {stopped}", flush=True)
        if not single:
            print(f"or with all of the sweep: the same command with hydra.sweep.dir={sweep}", flush=True)
        sys.exit(stopped.code)
    if not holds:
        _end(1, single)


class JobFailed(Exception):
    """A job of a sweep failed, and has said why: the others go on, and the sweep ends with the exit code of the first that did."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _end(code: int, single: bool) -> NoReturn:
    if single:
        sys.exit(code)
    raise JobFailed(code)


def _complain(error: UserError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # what a job of a sweep raises comes here, not into a traceback
    try:
        sys.argv[1:] = prepare(sys.argv[1:])
        main()
    except UserError as error:
        sys.exit(_complain(error))
    except JobFailed as failed:
        sys.exit(failed.code)
    except KeyboardInterrupt:
        print("stopped before there was anything to keep", file=sys.stderr)
        sys.exit(130)
