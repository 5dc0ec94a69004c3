"""An S3 store of moto on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

SECRET = "do-not-tell"


@dataclass
class Store:
    """A store with the bucket `texts`.

    Attributes:
        system: its file system, with the bucket as the first folder of each path.
        host: host and port.
    """

    system: Any
    host: str

    def address(self, path: str) -> str:
        """Address of a path in the bucket as a user types it, with key, secret and endpoint."""
        host = self.host.replace(":", "%3A")
        return f"s3://key:{SECRET}@texts/{path}?endpoint_override={host}&scheme=http&region=eu-west-1"

    def write(self, path: str, content: bytes) -> None:
        """Write an object."""
        with self.system.open_output_stream(f"texts/{path}") as out:
            out.write(content)

    def files(self, folder: str) -> dict[str, bytes]:
        """Content of the objects below a folder, by name."""
        from pyarrow.fs import FileSelector, FileType

        found = self.system.get_file_info(FileSelector(f"texts/{folder}", recursive=True))
        contents = {}
        for one in found:
            if one.type is FileType.File:
                with self.system.open_input_file(one.path) as file:
                    contents[one.base_name] = file.read()
        return contents


@contextmanager
def s3() -> Iterator[Store]:
    """Start a store, and end it."""
    from moto.server import ThreadedMotoServer
    from pyarrow.fs import S3FileSystem

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host = ":".join(map(str, server.get_host_and_port()))
        system = S3FileSystem(
            access_key="key", secret_key=SECRET, endpoint_override=host, scheme="http", region="eu-west-1",
            allow_bucket_creation=True,
        )  # fmt: skip
        system.create_dir("texts")
        yield Store(system, host)
    finally:
        server.stop()
