"""Stands for the process of a job in tests of Ray, without the seconds of its imports.

The arguments are its folder and what it does: end, fail, kill (itself), wait or deaf (to SIGTERM).
"""

import os
import signal
import sys
import time
from pathlib import Path


def main() -> None:
    folder, does = Path(sys.argv[1]), sys.argv[2]

    def stop(number: int, _: object) -> None:
        (folder / "stopped").write_text(str(number))
        if does != "deaf":
            sys.exit(143)

    signal.signal(signal.SIGTERM, stop)
    folder.mkdir(exist_ok=True)
    (folder / "began").write_text(f"{os.getpid()} {os.environ['OMP_NUM_THREADS']} {os.environ['CUDA_VISIBLE_DEVICES']}")
    if does == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if does == "fail":
        print("The library fell over.")
        sys.exit(1)
    if does == "end":
        (folder / "metrics.json").write_text("{}")
        return
    time.sleep(600)


if __name__ == "__main__":
    main()
