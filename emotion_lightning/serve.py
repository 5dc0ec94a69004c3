"""Answer over HTTP with a finished run: a page to try in a browser, and an interface for programs.

python -m emotion_lightning.serve                                    the bundled classifier, at http://127.0.0.1:8000
python -m emotion_lightning.serve run=outputs/train/DATE/TIME serve.port=9000
python -m emotion_lightning.serve run=[A,B,C] serve.host=0.0.0.0     an ensemble, for other machines
"""

from pathlib import Path

from emotion_lightning import config
from emotion_lightning.cli import app
from emotion_lightning.errors import UserError
from emotion_lightning.runs import extras, waiting


def serve(settings: config.Serve, folder: Path) -> None:
    """Answer until a signal comes.

    Raises:
        UserError: the extra is not installed, or the address or the run cannot be used.
    """
    try:
        import fastapi_offline  # noqa: F401
        import litserve  # noqa: F401
        import prometheus_client  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(f"serve needs packages that are missing: {extras.install('serve')}") from error
    from emotion_lightning.serving import server

    waiting.show_status("Loading the network")
    server.run(settings)


def main() -> None:
    """Read the command line and answer over HTTP."""
    app.run_command("serve", serve)


if __name__ == "__main__":
    main()
