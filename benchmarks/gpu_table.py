"""Writes the table of benchmarks/README.md from what gpu.py left in benchmarks/results/.

python benchmarks/gpu_table.py

A column for each card. Of each part the newest run at full size counts that came to an end, so that a part can be run
again by itself.
"""

import json
import statistics
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
BEGIN, END = "<!-- gpu.py: begin -->", "<!-- gpu.py: end -->"
NONE = "No results yet: the check has not run on a GPU."

Line = dict[str, Any]


def main() -> None:
    """Rewrite the table."""
    readme = FOLDER / "README.md"
    readme.write_text(replaced(readme.read_text(encoding="utf-8"), table(FOLDER / "results")), encoding="utf-8")


def replaced(text: str, table: str) -> str:
    """A README with another table between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"The README must have {BEGIN} and {END}: the table goes between them.")
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def table(folder: Path) -> str:
    """The table in Markdown.

    Args:
        folder: of a JSON lines file for each card.
    """
    cards = {}
    for file in sorted(folder.glob("*.jsonl")):
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        if found := newest(lines):
            cards[file.stem] = cells(found)
    if not cards:
        return NONE
    names = list(dict.fromkeys(name for column in cards.values() for name in column))
    rows = [["", *cards], ["---"] * (1 + len(cards))]
    rows += [[name, *(column.get(name, "") for column in cards.values())] for name in names]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def newest(lines: list[Line]) -> dict[str, list[Line]]:
    """Lines by part, each from the newest run that finished it; runs of another shape are left out."""
    whole = {line["run"] for line in lines if line["part"] == "run" and line["shape"] == "gemma2b"}
    found: dict[str, list[Line]] = {}
    for line in sorted(lines, key=lambda line: line["run"]):  # a stable sort: lines of a run stay in order
        # A part that failed before it told anything must not hide what an older run has.
        if line["run"] not in whole or line["part"] == "run" or "failed" in line or "skipped" in line:
            continue
        # Ratios stand beside the rates that they were made of.
        part = "train" if line["part"] == "ratio" else line["part"]
        kept = found.setdefault(part, [])
        if kept and kept[0]["run"] != line["run"]:
            kept.clear()
        kept.append(line)
    return found


def cells(found: dict[str, list[Line]]) -> dict[str, str]:
    """A card's column: what a row is called, and what it says."""
    column: dict[str, str] = {}
    for part, write in WRITERS.items():
        if part in found:
            write(found[part], column)
    return column


def _env(lines: list[Line], column: dict[str, str]) -> None:
    line = lines[-1]
    column["torch, transformers, bitsandbytes"] = ", ".join(
        line[name] for name in ("torch", "transformers", "bitsandbytes")
    )


def _train(lines: list[Line], column: dict[str, str]) -> None:
    names = {"ours": "ours", "trainer_best": "the Trainer at its best", "trainer": "the Trainer as QLoRA has it"}
    for side, name in names.items():
        if turns := [line for line in lines if line.get("side") == side]:
            rate, tokens = (statistics.median(turn[key] for turn in turns) for key in ("samples_s", "tokens_s"))
            peak = max(turn["peak_gib"] for turn in turns)
            column[f"training, {name}"] = f"{rate:,.0f} texts/s, {tokens:,.0f} tokens/s, {peak:.2f} GiB"
    for line in lines:
        if line["part"] == "ratio":
            column["ours over the Trainer at its best"] = _ratio(line, "trainer_best")
            column["ours over the Trainer as QLoRA has it"] = _ratio(line, "trainer")


def _ratio(line: Line, side: str) -> str:
    return f"{line[f'over_{side}']:.2f} x, with {line[f'memory_over_{side}']:.2f} of the memory"


def _profile(lines: list[Line], column: dict[str, str]) -> None:
    for line in lines:
        shares = ", ".join(f"{kind} {share:.0%}" for kind, share in line["shares"].items() if share >= 0.01)
        column[f"a step of {line['batch']} texts"] = f"{line['ms_step']:.0f} ms, of which gaps {line['gap_share']:.0%}"
        column[f"its kernels ({line['batch']} texts)"] = f"{line['launches_step']:,}: {shares}"
        column[f"its products alone ({line['batch']} texts)"] = (
            f"{line['products_alone_ms']:.0f} ms, {line['products_tflops']:.0f} TFLOP/s; "
            f"dequantising alone {line['dequantising_alone_ms']:.0f} ms"
        )


def _graph(lines: list[Line], column: dict[str, str]) -> None:
    line = lines[-1]
    column[f"forward and backward, {line['batch']} texts"] = f"{line['eager_ms']:.1f} ms"
    column["the same as a CUDA graph"] = f"{line['graph_ms']:.1f} ms"


def _sweep(lines: list[Line], column: dict[str, str]) -> None:
    for line in lines:
        settings = "".join(f", `{setting}`" for setting in line["more"])
        column[f"ours, `data.batch_size={line['batch']}`{settings}"] = (
            f"{line['samples_s']:,.0f} texts/s, {line['tokens_s']:,.0f} tokens/s, {line['peak_gib']:.2f} GiB"
        )


def _fp16(lines: list[Line], column: dict[str, str]) -> None:
    for line in lines:
        if "compared_steps" in line:
            column["float16's losses beside bfloat16's"] = (
                f"{line['mean_difference']:.4f} apart in the mean of {line['compared_steps']} steps"
            )
        elif line["plain"]:
            column["plain float16"] = "ends with its message" if line["ended"] else "does not end with a message"
        elif line["dtype"] == "float16":
            ended = f", ended early: {line['ended']}" if line["ended"] else ""
            column["float16"] = (
                f"{line['steps']} steps, {line['skipped_steps']} skipped, {line['ms_step']:.0f} ms each, "
                f"{line['peak_gib']:.2f} GiB{ended}"
            )


def _load(lines: list[Line], column: dict[str, str]) -> None:
    for line in lines:
        if "seconds" in line:
            column["loading 5 GB from disk"] = (
                f"{line['seconds']:.0f} s, {line['peak_gib']:.2f} GiB at most, {line['held_gib']:.2f} GiB after"
            )


WRITERS = {
    "env": _env, "train": _train, "profile": _profile, "graph": _graph, "sweep": _sweep, "fp16": _fp16, "load": _load,
}  # fmt: skip


if __name__ == "__main__":
    main()
