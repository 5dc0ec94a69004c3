"""All benchmarks of a CPU, one after the other: each prints a table and writes JSON into outputs/bench/.

python benchmarks/run.py [--only commands,training,prediction,limit,scaling,cluster]

That of a GPU is gpu.py.
"""

import argparse
import subprocess
import sys

import common

RUNS = {
    "commands": [["commands.py"]],
    "training": [["training.py", "--network=minilm"], ["training.py", "--network=gemma", "--steps=30"]],
    "prediction": [["prediction.py", "--network=minilm"], ["prediction.py", "--network=gemma", "--count=1000"]],
    "limit": [["limit.py", "--network=minilm"], ["limit.py", "--network=gemma", "--steps=6"]],
    "scaling": [["scaling.py", "--network=minilm", "--rows=1000,10000"]],
    "cluster": [["cluster.py"], ["cluster.py", "--network=bundled", "--rows=10000", "--sides=predict,ray1,hand"]],
}


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(RUNS))
    asked = parser.parse_args()
    for name, runs in RUNS.items():
        for script, *arguments in runs if name in asked.only.split(",") else []:
            print(f"\n{script} {' '.join(arguments)}", flush=True)
            command = [sys.executable, str(common.REPO / "benchmarks" / script), *arguments]
            if code := subprocess.run(command, env=common.environment()).returncode:
                sys.exit(code)


if __name__ == "__main__":
    main()
