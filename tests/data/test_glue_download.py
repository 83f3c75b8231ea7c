from __future__ import annotations

import hashlib
import io
import re
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from squeezebert.data import glue_download
from squeezebert.data.examples import Example
from squeezebert.data.glue_download import SOURCES, Progress, Source, download
from squeezebert.data.tasks import GLUE, load_split
from squeezebert.errors import InputError

_SST2 = GLUE["sst2"]


class _Server:
    """A server of files that can break off, refuse ranges or fail; it keeps a list of what it was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.break_off_after: list[int] = []
        """Bytes after which the connection is closed, answer by answer; once used up, all is sent."""
        self.statuses: list[int] = []
        """Failures to answer with first."""
        self.requests: list[tuple[str, str | None]] = []
        """(path, Range header) of each request."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._answer(self)

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers["Range"]
        path = request.path.lstrip("/")
        self.requests.append((path, wanted))
        if self.statuses or path not in self.files:
            request.send_error(self.statuses.pop(0) if self.statuses else 404)
            return
        content = self.files[path]
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.ranges else 0
        if start >= len(content):
            request.send_error(416)
            return
        request.send_response(206 if wanted and self.ranges else 200)
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        end = start + self.break_off_after.pop(0) if self.break_off_after else len(content)
        request.wfile.write(content[start:end])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    monkeypatch.setattr(glue_download, "_PAUSES", (0.0, 0.0))
    server = _Server()
    yield server
    server.close()


def _zip(members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


_MEMBERS = {
    "SST-2/": "",
    "SST-2/train.tsv": "sentence\tlabel\n" + "good \t1\nbad \t0\n" * 1_000,
    "SST-2/dev.tsv": "sentence\tlabel\nfine \t1\n",
    "SST-2/test.tsv": "index\tsentence\n0\twell\n",
    "SST-2/original/README.txt": "not needed",
}


def _publish(server: _Server, monkeypatch: pytest.MonkeyPatch, task: str, *contents: bytes) -> None:
    """Let the server have the task's files, and the table their sizes and sums."""
    table = []
    for source, content in zip(SOURCES[task], contents, strict=True):
        server.files[source.path] = content
        table.append(Source(source.path, len(content), hashlib.sha256(content).hexdigest()))
    monkeypatch.setitem(SOURCES, task, tuple(table))


@pytest.fixture
def archive(server: _Server, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The archive of SST-2 that the server has."""
    content = _zip(_MEMBERS)
    _publish(server, monkeypatch, "sst2", content)
    return content


def _fails(server: _Server, folder: Path, message: str) -> None:
    with pytest.raises(InputError) as caught:
        list(download([_SST2], folder, base_url=server.url))
    assert re.search(message, str(caught.value))
    assert "\n" not in str(caught.value)


_PATH = "glue/data/SST-2.zip"


def test_table_has_every_task_and_plausible_sums() -> None:
    assert SOURCES.keys() == GLUE.keys()
    sources = [source for files in SOURCES.values() for source in files]
    assert len({source.path for source in sources}) == len({source.sha256 for source in sources}) == len(sources)
    for source in sources:
        assert re.fullmatch("[0-9a-f]{64}", source.sha256)
    # The download sizes of the hub's dataset_infos.json.
    assert sum(source.size for source in SOURCES["mrpc"]) == 1_494_541
    assert sum(source.size for source in sources) == 376_169_247


def test_files_arrive_in_the_official_layout(server: _Server, archive: bytes, tmp_path: Path) -> None:
    seen: list[Progress] = []
    (fetched,) = download([_SST2], tmp_path / "glue", base_url=f"{server.url}/", progress=seen.append)
    assert (fetched.task, fetched.folder, fetched.was_there) == (_SST2, tmp_path / "glue" / "SST-2", False)
    assert server.requests == [(_PATH, None)]
    assert load_split(_SST2, "validation", tmp_path / "glue") == [Example("fine ", None, 1)]
    assert len(load_split(_SST2, "train", tmp_path / "glue")) == 2_000
    # Nothing else stays.
    assert [path.name for path in (tmp_path / "glue").iterdir()] == ["SST-2"]
    assert sorted(path.name for path in fetched.folder.iterdir()) == ["SOURCE.json", "dev.tsv", "test.tsv", "train.tsv"]
    done = [progress.done for progress in seen]
    assert done == sorted(done)
    last = seen[-1]
    assert (last.file, last.done, last.total, last.seconds_left) == ("SST-2.zip", len(archive), len(archive), 0)
    assert last.bytes_per_second > 0


def test_what_is_there_is_not_fetched_again(server: _Server, archive: bytes, tmp_path: Path) -> None:
    list(download([_SST2], tmp_path, base_url=server.url))
    server.requests.clear()
    (fetched,) = download([_SST2], tmp_path, base_url=server.url)
    assert fetched.was_there
    assert server.requests == []


def test_a_folder_of_other_origin_is_left_alone(server: _Server, archive: bytes, tmp_path: Path) -> None:
    (tmp_path / "SST-2").mkdir()
    (tmp_path / "SST-2" / "train.tsv").write_text("mine")
    _fails(server, tmp_path, "SST-2 exists and is not from this command; move it away")
    assert (tmp_path / "SST-2" / "train.tsv").read_text() == "mine"
    assert server.requests == []


def test_broken_transfer_goes_on_by_itself(server: _Server, archive: bytes, tmp_path: Path) -> None:
    third = len(archive) // 3
    server.break_off_after = [third, third]
    list(download([_SST2], tmp_path, base_url=server.url))
    assert server.requests == [(_PATH, None), (_PATH, f"bytes={third}-"), (_PATH, f"bytes={2 * third}-")]
    assert len(load_split(_SST2, "train", tmp_path)) == 2_000


def test_broken_transfer_goes_on_in_the_next_call(server: _Server, archive: bytes, tmp_path: Path) -> None:
    # The attempt that gains bytes, then as many without any as there are pauses, and one more.
    server.break_off_after = [1000, 0, 0]
    _fails(server, tmp_path, rf"closed too early; 1,000 of {len(archive):,} bytes are kept, run the command again")
    assert (tmp_path / "SST-2.zip.part").read_bytes() == archive[:1000]
    assert not (tmp_path / "SST-2").exists()
    server.requests.clear()
    list(download([_SST2], tmp_path, base_url=server.url))
    assert server.requests == [(_PATH, "bytes=1000-")]
    assert len(load_split(_SST2, "train", tmp_path)) == 2_000


def test_whole_transfer_that_was_not_unpacked_is_used(server: _Server, archive: bytes, tmp_path: Path) -> None:
    (tmp_path / "SST-2.zip.part").write_bytes(archive)
    list(download([_SST2], tmp_path, base_url=server.url))
    assert server.requests == []
    assert len(load_split(_SST2, "train", tmp_path)) == 2_000


def test_server_without_ranges_starts_again(server: _Server, archive: bytes, tmp_path: Path) -> None:
    server.ranges = False
    server.break_off_after = [1000]
    list(download([_SST2], tmp_path, base_url=server.url))
    assert server.requests == [(_PATH, None), (_PATH, "bytes=1000-")]
    assert len(load_split(_SST2, "train", tmp_path)) == 2_000


def test_wrong_checksum_removes_the_file(server: _Server, archive: bytes, tmp_path: Path) -> None:
    server.files[_PATH] = archive[:-1] + bytes([archive[-1] ^ 1])
    _fails(server, tmp_path, f"wrong SHA-256 .*has {SOURCES['sst2'][0].sha256}; the file was removed")
    assert list(tmp_path.iterdir()) == []


def test_half_of_another_file_does_not_slip_through(server: _Server, archive: bytes, tmp_path: Path) -> None:
    (tmp_path / "SST-2.zip.part").write_bytes(b"\0" * 1000)
    _fails(server, tmp_path, "wrong SHA-256")
    list(download([_SST2], tmp_path, base_url=server.url))
    assert len(load_split(_SST2, "train", tmp_path)) == 2_000


@pytest.mark.parametrize("change", [b"longer", b""])
def test_wrong_size_is_refused_before_the_transfer(
    server: _Server, archive: bytes, tmp_path: Path, change: bytes
) -> None:
    server.files[_PATH] = archive + change if change else archive[:-1]
    size = len(server.files[_PATH])
    _fails(server, tmp_path, rf"{size:,} bytes, the official file has {len(archive):,}; check --base-url")
    assert list(tmp_path.iterdir()) == []


def test_part_longer_than_the_file_is_dropped(server: _Server, archive: bytes, tmp_path: Path) -> None:
    (tmp_path / "SST-2.zip.part").write_bytes(archive + b"more")
    list(download([_SST2], tmp_path, base_url=server.url))
    assert [wanted for _, wanted in server.requests] == [f"bytes={len(archive) + 4}-", None]
    assert len(load_split(_SST2, "train", tmp_path)) == 2_000


def test_missing_file_on_the_server_is_final(server: _Server, archive: bytes, tmp_path: Path) -> None:
    server.files.clear()
    _fails(server, tmp_path, rf"{server.url}/{_PATH}: HTTP 404 Not Found; check --base-url")
    assert len(server.requests) == 1


def test_busy_server_is_asked_again(server: _Server, archive: bytes, tmp_path: Path) -> None:
    server.statuses = [503, 429]
    list(download([_SST2], tmp_path, base_url=server.url))
    assert len(server.requests) == 3
    server.statuses = [503] * 3
    _fails(server, tmp_path / "other", "HTTP 503 Service Unavailable; check the network")


def test_no_server(server: _Server, archive: bytes, tmp_path: Path) -> None:
    server.close()
    _fails(server, tmp_path, "cannot connect .*; check the network")


def test_base_url_must_be_http(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--base-url file:///etc: not an address"):
        list(download([_SST2], tmp_path, base_url="file:///etc"))


@pytest.mark.parametrize("name", ["../outside.tsv", "SST-2/../../outside.tsv", "/outside.tsv"])
def test_names_that_lead_out_of_the_folder_are_never_written(
    server: _Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    _publish(server, monkeypatch, "sst2", _zip(_MEMBERS | {name: "evil"}))
    list(download([_SST2], tmp_path / "glue", base_url=server.url))
    assert not list(tmp_path.rglob("outside.tsv"))
    assert not Path("/outside.tsv").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["glue"]


@pytest.mark.parametrize(
    "content", [b"PK no archive", _zip({"SST-2/train.tsv": "", "train.tsv": "", "../dev.tsv": ""})]
)
def test_unfit_archive_leaves_no_folder(
    server: _Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    _publish(server, monkeypatch, "sst2", content)
    _fails(server, tmp_path, r"SST-2.zip.part: this is not GLUE's archive of sst2 .*; remove it")
    assert [path.name for path in tmp_path.iterdir()] == ["SST-2.zip.part"]


_MRPC_HEADER = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"


def test_mrpc_is_divided_by_the_ids_of_its_dev_set(
    server: _Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = ['1\t10\t11\tA "a\tb', "0\t20\t21\tc\td", "1\t30\t31\te\tf"]
    train = "\ufeff" + "".join(f"{line}\r\n" for line in [_MRPC_HEADER, *rows])
    test = "\ufeff" + "".join(f"{line}\r\n" for line in [_MRPC_HEADER, "1\t40\t41\tg\th", "0\t50\t51\ti\tj"])
    # Ids count as a pair: 31 alone is in another row.
    dev_ids = "20\t21\n10\t31\n"
    _publish(server, monkeypatch, "mrpc", train.encode(), test.encode(), dev_ids.encode())
    list(download([GLUE["mrpc"]], tmp_path, base_url=server.url))
    assert load_split(GLUE["mrpc"], "train", tmp_path) == [Example('A "a', "b", 1), Example("e", "f", 1)]
    assert load_split(GLUE["mrpc"], "validation", tmp_path) == [Example("c", "d", 0)]
    assert load_split(GLUE["mrpc"], "test", tmp_path) == [Example("g", "h"), Example("i", "j")]
    assert (tmp_path / "MRPC" / "test.tsv").read_text().splitlines() == [
        "index\t#1 ID\t#2 ID\t#1 String\t#2 String",
        "0\t40\t41\tg\th",
        "1\t50\t51\ti\tj",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["MRPC"]


def test_real_mrpc_comes_out_as_it_went_in(
    server: _Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared_data: Path
) -> None:
    """Microsoft's file, put together again from train and dev, gives both."""
    folder = shared_data / "glue" / "MRPC"
    train, dev, test = (
        (folder / name).read_text(encoding="utf-8-sig").splitlines() for name in ("train.tsv", "dev.tsv", "test.tsv")
    )
    labelled_test = [_MRPC_HEADER] + ["1" + line[line.index("\t") :] for line in test[1:]]
    _publish(
        server,
        monkeypatch,
        "mrpc",
        "\n".join(train + dev[1:]).encode(),
        "\n".join(labelled_test).encode(),
        "\n".join("\t".join(line.split("\t")[1:3]) for line in dev[1:]).encode(),
    )
    list(download([GLUE["mrpc"]], tmp_path, base_url=server.url))
    for split in ("train", "validation", "test"):
        assert load_split(GLUE["mrpc"], split, tmp_path) == load_split(GLUE["mrpc"], split, folder)


def test_diagnostics_are_one_plain_file(server: _Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _publish(server, monkeypatch, "ax", b"index\tsentence1\tsentence2\n0\ta\tb\n")
    list(download([GLUE["ax"]], tmp_path, base_url=server.url))
    assert load_split(GLUE["ax"], "test", tmp_path) == [Example("a", "b")]
