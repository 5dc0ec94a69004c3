"""Inspect a dataset before training: lengths, labels, shifts, duplicates, leaks, examples. No weights are loaded.

python -m emotion_lightning.inspect data=file data.path=my.csv
python -m emotion_lightning.inspect data=goemotions data.dir=FOLDER model=gemma
python -m emotion_lightning.inspect model=auto model.path=FOLDER    also prints what the network is made of
"""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from emotion_lightning import config, terminal
from emotion_lightning.cli import app, override_grammar
from emotion_lightning.cli.compose import chosen_options, option_folders, settings_of
from emotion_lightning.config import redaction, schema
from emotion_lightning.errors import UserError
from emotion_lightning.runs import run_folder, waiting
from emotion_lightning.runs.files import as_json, as_text, write_together

if TYPE_CHECKING:
    from emotion_lightning.data import doctor

log = logging.getLogger(__name__)


def inspect(settings: config.Inspect, folder: Path) -> None:
    """Print the findings about the data, and write data_card.md, data_card.html and data_card.json.

    Raises:
        UserError: the data or the tokenizer cannot be read, or the tokenizer is that of another network.
    """
    from emotion_lightning.data import max_tokens, sources
    from emotion_lightning.models import auto, backbone, structure
    from emotion_lightning.reports import charts, console, data_facts, data_page, pages
    from emotion_lightning.reports.charts import data as data_charts
    from emotion_lightning.reports.charts import names
    from emotion_lightning.runs import quiet

    quiet.hide_progress_bars()
    backbone.check_access(settings.model)
    waiting.show_status("Reading the data")
    # The data card reports leaks. With drop_leaks they are removed before, so the split logs them.
    try:
        corpus = sources.split_corpus(sources.read_corpus(settings.data), settings.data, tell=settings.data.drop_leaks)
    except UserError as error:
        if isinstance(settings.data, config.File):
            _show_diagnosis(settings.data, error)
        raise
    if settings.model.is_open:
        _show_structure(settings.model, labels=len(corpus.labels))
    waiting.show_status("Counting tokens and labels")
    tokenizer, positions = backbone.load_tokenizer(settings.model), auto.positions(settings.model)
    if settings.model.pretrained and tokenizer.pad_token_id is not None:
        backbone.check_padding_token(
            structure.empty_network(auto.architecture_of(settings.model)), tokenizer.pad_token_id
        )
    data = settings.data
    if data.max_tokens == config.AUTO:
        data = max_tokens.choose(data, corpus, tokenizer, positions=positions)
    facts = data_facts.describe_data(
        corpus,
        tokenizer,
        data=data,
        weighted=settings.loss,
        shown=redaction.settings({"option": chosen_options()["data"], **schema.plain(data)}),
        examples=settings.examples,
        seed=settings.seed,
        tokenizer_name=settings.model.path if settings.model.pretrained else "the bundled tokenizer",
        positions=positions,
    )
    waiting.show_status("Drawing the pictures")
    pictures = {name: charts.picture(figure) for name, figure in data_charts.data_pictures(facts).items()}
    numbers = names.numbers(facts.labels)
    files = {folder / run_folder.PICTURES / f"{name}.png": picture.png for name, picture in pictures.items()}
    write_together(
        files
        | {
            folder / "data_card.md": as_text(data_page.markdown(facts, numbers)),
            folder / "data_card.html": as_text(data_page.html(facts, pictures, numbers)),
            folder / "data_card.json": as_json(facts.plain()),
        }
    )
    tables, examples = (data_page.sections(facts), facts.examples) if settings.tables else ([], {})
    console.show_data(facts.read, pages.main_facts(facts), facts.findings(), tables, examples)
    log.info("Tables, pictures and examples: %s", folder / "data_card.html")
    if not settings.tables:
        log.info("Add tables=true to print the tables here.")


def _show_diagnosis(data: config.File, error: UserError) -> None:
    """Print what a file that cannot be read holds, and settings that read it; offer to save these as an option."""
    from emotion_lightning.data import doctor
    from emotion_lightning.reports import console

    waiting.show_status("Looking for settings that read the data")
    found = doctor.examine(data, error)
    waiting.end_status()
    lines = []
    for way in found.ways:
        added = [override_grammar.typed(f"data.{name}", value) for name, value in way.settings.items()]
        given = [a for a in sys.argv[1:] if a.partition("=")[0] not in {f"data.{name}" for name in way.settings}]
        lines.append(override_grammar.shell_line("inspect", [*given, *added]))
    console.show_diagnosis(found, lines)
    if found.ways:
        _offer_option(data, found)


def _offer_option(data: config.File, found: "doctor.Diagnosis") -> None:
    """Write the settings that read a file as an option of the data group; without a terminal, print that option."""
    from emotion_lightning.data import doctor

    content = yaml.safe_dump(
        doctor.option_file(data, found.ways[0].settings), sort_keys=False, allow_unicode=True, default_flow_style=None
    )
    folder = next(iter(option_folders(sys.argv[1:])), Path("options"))
    file = doctor.free_name(folder / "data", found.path)
    use = override_grammar.shell_line("train", [f"--config-dir={folder}", f"data={file.stem}"])
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        terminal.say(f"As an option of your own, {file}, for {use}:\n\n{content}")
        return
    terminal.say(f"{content}\nWrite this to {file}, for {use}? [y/N]")
    try:
        answer = input()
    except EOFError:
        return
    if answer.strip().lower() in ("y", "yes"):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_together({file: as_text(content)})
        terminal.say(f"Wrote {file}.")


def _show_structure(model: config.Model, *, labels: int) -> None:
    """Print what model=auto reads from the network, and what each option of peft trains."""
    from emotion_lightning.models import auto, structure
    from emotion_lightning.reports import console

    waiting.show_status("Building the network without its weights")
    found = structure.read_structure(auto.architecture_of(model), labels=labels)
    asked = ["model=auto", f"model.path={override_grammar.quote_path(model.path)}"]
    methods = {name: settings_of("train", [*asked, f"peft={name}"]).peft for name in schema.option_files("peft")}
    waiting.end_status()
    console.show_structure(structure.tables(found, methods))


def main() -> None:
    """Read the command line and inspect the data."""
    app.run_command("inspect", inspect)


if __name__ == "__main__":
    main()
