"""The effective configuration: origins, overriding, wrong keys with their place, secrets, hostile files."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microrisk.cli import main
from microrisk.errors import UsageError
from microrisk.monitor import config as module
from microrisk.monitor.address import MoldOptions
from microrisk.monitor.config import load, parse_sets
from microrisk.monitor.keys import is_loopback
from microrisk.monitor.secret import Secret, read_secret, redacted
from microrisk.monitor.tomlfile import LARGEST, TomlFile, read_toml

FILE = """\
config_version = 1

[monitor]
port = 9000           # of the page
same = [
  ["BTC-USD", "BTCUSDT"],   # a tether is not a dollar, but we say so
]

[out]
"alerts" = '/tmp/a.jsonl'

[[feed]]
name = "nasdaq"
url = "moldudp64://239.1.1.1:30001"
window = 128

[[feed]]
kind = "coinbase"
products = ["BTC-USD"]
"""


def write(folder: Path, text: str, name: str = "feeds.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def private(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = write(folder, text, "secret")
    path.chmod(mode)
    return path


def refused(folder: Path, text: str, **options) -> str:
    with pytest.raises(UsageError) as error:
        load(write(folder, text), environ=options.pop("environ", {}), **options)
    return str(error.value).replace(str(folder / "feeds.toml"), "F")


def test_each_value_knows_where_it_came_from(tmp_path):
    path = write(tmp_path, FILE)
    found = load(
        path,
        environ={
            "MICRORISK_MONITOR__SCORED": "50",
            "MICRORISK_FEED__NASDAQ__WAIT_US": "7",
            "MICRORISK_DATA": "/x",
            "HOME": "/root",
        },
        flags={"latency.spin": "true", "feed.nasdaq.window": "256"},
        sources=["kraken:BTC/USD"],
    )
    assert (found.monitor.port, found.monitor.scored, found.latency.spin) == (9000, 50, True)
    assert found.monitor.same == (("BTC-USD", "BTCUSDT"),)
    assert found.out.alerts == "/tmp/a.jsonl"
    assert [f.name for f in found.feeds] == ["nasdaq", "coinbase", "kraken"]
    options = found.feeds[0].options
    assert isinstance(options, MoldOptions)
    assert (options.window, options.wait_us) == (256, 7)
    want = {
        "monitor.port": f"{path}:4",
        "monitor.same": f"{path}:5",
        "monitor.host": "default",
        "monitor.scored": "environment MICRORISK_MONITOR__SCORED",
        "latency.spin": "flag",
        "out.alerts": f"{path}:10",
        "feed.nasdaq.url": f"{path}:14",
        "feed.nasdaq.wait_us": "environment MICRORISK_FEED__NASDAQ__WAIT_US",
        "feed.nasdaq.window": "flag",
        "feed.coinbase.products": f"{path}:19",
        "feed.kraken.url": "flag",
    }
    assert {k: found.origins[k] for k in want} == want


def test_environment_over_file_and_flag_over_environment(tmp_path):
    path = write(tmp_path, FILE)
    environ = {"MICRORISK_MONITOR__PORT": "9001"}
    assert load(path, environ={}).monitor.port == 9000
    assert load(path, environ=environ).monitor.port == 9001
    assert load(path, environ=environ, flags={"monitor.port": "9002"}).monitor.port == 9002


def test_every_key_has_a_default_a_sentence_and_a_variable():
    base = load(environ={})
    for section, struct in module.SECTIONS.items():
        for name, key in module.keys_of(struct).items():
            assert key.doc, f"{section}.{name}"
            value = getattr(getattr(base, section), name)
            variable = f"MICRORISK_{section}__{name}".upper()
            again = load(environ={variable: module.as_text(value)})
            assert getattr(getattr(again, section), name) == value
            assert again.origins[f"{section}.{name}"] == f"environment {variable}"


def test_lists_from_the_environment():
    found = load(environ={"MICRORISK_MONITOR__SAME": '[["A","B"]]', "MICRORISK_MONITOR__WATCH": "A.X, B.Y"})
    assert found.monitor.same == (("A", "B"),)
    assert found.monitor.watch == ("A.X", "B.Y")


def test_the_file_may_be_named_by_the_environment(tmp_path):
    assert load(environ={"MICRORISK_CONFIG": str(write(tmp_path, FILE))}).monitor.port == 9000


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[monitor]\n\nprot = 1\n", ["F:3:", "'prot'", "did you mean port?"]),
        ("[monitr]\nport = 1\n", ["F:1:", "did you mean monitor?"]),
        ("[monitor]\nport = '1'\n", ["F:2:", "monitor.port = '1'", "expected int"]),
        ("[monitor]\nport = 65536\n", ["F:2:", "65535"]),
        ("[monitor]\nport = true\n", ["F:2:", "expected int"]),
        ("[monitor]\nsnapshot_s = nan\n", ["F:2:", "snapshot_s"]),
        ("[monitor]\nsame = [['A']]\n", ["F:2:", "BTCUSDT"]),
        ("monitor = 3\n", ["F:1:", "[monitor]"]),
        ("[monitor]\nport = \n", ["F:2:", "no TOML"]),
        ("[monitor]\nport = 1", []),
        ("[feed]\nurl='coinbase:A'\n", ["F:1:", "[[feed]]"]),
        ("feed = [1]\n", ["F:1:", "[[feed]]"]),
        ("[[feed]]\nkind = 'kraken'\nproducts = ['A']\ndepht = 10\n", ["F:4:", "did you mean depth?"]),
        ("[[feed]]\nurl = 'coinbase:A'\n[[feed]]\nurl = 'moldudp64://a'\n", ["F:4:", "HOST:PORT"]),
        ("[[feed]]\nurl='coinbase:A'\nname='x'\n[[feed]]\nurl='kraken:A'\nname='x'\n", ["two feeds"]),
        ("[[feed]]\nkind='file'\npath='x'\nname='../../x'\n", ["F:4:", "letters"]),
        ("config_version = 2\n[unheard_of]\n", ["F:1:", "config_version = 2", "1..1", "update"]),
        ("config_version = '1'\n", ["F:1:", "config_version"]),
        ("config_version = 0\n", ["F:1:", "config_version"]),
        ("config_version = true\n", ["F:1:", "config_version"]),
        ("[out]\nwebhook = 'http://example.org/'\n", ["F:2:", "https is needed"]),
        ("[out]\nwebhook = 'https://10.0.0.1/'\n", ["F:2:", "private"]),
        ("[out]\nwebhook = 'https://169.254.169.254/'\nwebhook_private = true\n", ["F:2:", "link-local"]),
        ("[monitor]\nhost = '0.0.0.0'\n", ["F:2:", "MICRORISK_MONITOR__TOKEN", "token_file"]),
        ("[monitor]\ntls_cert = 'x'\n", ["tls_key"]),
        ('[monitor]\njournal = "a\\u0000b"\n', ["F:2:", "journal"]),
    ],
)
def test_wrong_files_are_refused_with_line_and_remedy(tmp_path, text, parts):
    if not parts:
        assert load(write(tmp_path, text), environ={}).monitor.port == 1
        return
    said = refused(tmp_path, text)
    for part in parts:
        assert part in said, said


def test_all_problems_are_said_at_once(tmp_path):
    said = refused(
        tmp_path,
        "[monitor]\nprot = 1\nscored = -1\n[[feed]]\nurl = 'x:y'\n",
        environ={"MICRORISK_OUT__ALERT": "x", "MICRORISK_OTU__ALERTS": "x", "MICRORISK_FEED__NO__WINDOW": "1"},
        flags={"latency.spn": "1", "ltncy.spin": "1"},
        sources=["y:z"],
    )
    assert len(said.splitlines()) == 9
    for part in (
        "F:2:",
        "F:3:",
        "F:5:",
        "MICRORISK_OUT__ALERT:",
        "MICRORISK_OTU__ALERTS:",
        "MICRORISK_FEED__NO__WINDOW:",
        "--set latency.spn",
        "--set ltncy.spin",
        "y:z",
    ):
        assert part in said


# -- secrets --------------------------------------------------------------------------------------------------


def test_secrets_come_from_the_environment_or_a_closed_file_and_are_never_shown(tmp_path):
    file = private(tmp_path, "hunter2\n")
    text = FILE + f"[[feed]]\nurl = 'soupbintcp://h:1?user=u&name=soup&password_file={file}'\n"
    found = load(
        write(tmp_path, text),
        environ={"MICRORISK_MONITOR__TOKEN": "hunter3", "MICRORISK_FEED__NASDAQ__PASSWORD": "hunter4"},
    )
    assert found.token is not None
    assert found.token.reveal() == "hunter3"
    assert {k: s.reveal() for k, s in found.passwords.items()} == {"nasdaq": "hunter4", "soup": "hunter2"}
    told = json.dumps(found.describe())
    for text in (told, repr(found), str(found), repr(found.passwords), f"{found.token}"):
        assert "hunter" not in text
    assert '"***"' in told


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o601])
def test_a_secret_file_that_others_may_open_is_refused(tmp_path, mode):
    with pytest.raises(UsageError, match="chmod 600") as error:
        read_secret(private(tmp_path, "hunter2", mode))
    assert "hunter2" not in str(error.value)


def test_secret_files_that_are_none(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path, text in (
        (tmp_path / "no", "cannot read"),
        (tmp_path, "plain file"),
        (tmp_path / "pipe", "plain file"),
        (private(tmp_path, ""), "holds no secret"),
    ):
        with pytest.raises(UsageError, match=text):
            read_secret(path)
    with pytest.raises(UsageError, match="holds no secret"):
        read_secret(private(tmp_path, "x" * 5000))


def test_a_secret_in_the_file_or_in_a_flag_is_refused_and_not_repeated(tmp_path):
    for section, key in module.SECRETS:
        for said in (
            refused(tmp_path, f"[{section}]\n{key} = 'hunter2'\n"),
            refused(tmp_path, "", flags={f"{section}.{key}": "hunter2"}),
        ):
            assert "hunter2" not in said
            assert f"MICRORISK_{section}__{key}".upper() in said


def test_two_places_for_one_secret_are_refused(tmp_path):
    said = refused(
        tmp_path, f"[monitor]\ntoken_file = '{private(tmp_path, 'a')}'\n", environ={"MICRORISK_MONITOR__TOKEN": "b"}
    )
    assert "both" in said


def test_a_public_address_with_a_token_is_taken_and_a_viewer_has_another(tmp_path):
    environ = {"MICRORISK_MONITOR__HOST": "0.0.0.0", "MICRORISK_MONITOR__TOKEN": "a"}
    assert load(environ=environ).monitor.host == "0.0.0.0"
    with pytest.raises(UsageError, match="viewer"):
        load(environ=environ | {"MICRORISK_MONITOR__VIEWER_TOKEN": "a"})


def test_a_secret_cannot_be_encoded():
    import pickle

    import msgspec

    secret = Secret("hunter2", "test")
    with pytest.raises(TypeError):
        msgspec.json.encode(secret)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert secret.same("hunter2")
    assert not secret.same("hunter3")


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("https://u:hunter2@h/x", "https://***@h/x"),
        ("https://h/?a=1&token=hunter2&b=2", "https://h/?a=1&token=***&b=2"),
        ("wss://h/?api_key=hunter2", "wss://h/?api_key=***"),
        ("MICRORISK_MONITOR__TOKEN=hunter2", "MICRORISK_MONITOR__TOKEN=***"),
        ("https://h/?tokens", "https://h/?tokens"),
    ],
)
def test_redaction(text, want):
    assert redacted(text) == want


# -- hostile files --------------------------------------------------------------------------------------------


def test_a_huge_file_is_not_parsed(tmp_path):
    path = write(tmp_path, "# " + "x" * LARGEST)
    with pytest.raises(UsageError, match="larger than"):
        read_toml(path)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a = " + "[" * 4000 + "]" * 4000, "nested"),
        ("\n".join(["a = [", *["[" * 1000] * 6, *["]" * 1000] * 6, "]"]), "nested"),
        (".".join("a" * 5000) + " = 1", "characters"),
        ("a = " + "9" * 6000, "too long"),
        ("a = 1\na = 2", ":2: no TOML"),
        ("a = '\x00'", "no TOML"),
    ],
)
def test_hostile_texts_are_usage_errors(tmp_path, text, part):
    with pytest.raises(UsageError, match=part):
        read_toml(write(tmp_path, text))


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "feeds.toml"
    path.write_bytes(b"a = 1\nb = '\xff'\n")
    with pytest.raises(UsageError, match=r"feeds\.toml:2: no UTF-8"):
        read_toml(path)


def test_files_that_are_none(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UsageError, match=r"plain file|cannot read"):
            read_toml(path)
    with pytest.raises(UsageError, match="cannot read"):
        read_toml(tmp_path / "none")


def test_too_many_feeds(tmp_path):
    said = refused(tmp_path, "[[feed]]\nurl = 'coinbase:A'\n" * (module.MOST_FEEDS + 1))
    assert "at most 1024" in said


@given(st.text(max_size=300))
def test_any_text_is_a_file_or_a_usage_error(text):
    try:
        file = TomlFile("F", text)
    except UsageError:
        return
    for name in file.data:
        assert file.where(name).startswith("F:")


@given(
    st.lists(
        st.sampled_from(
            ["[a]", "[[f]]", "x = 1", "y = [1,\n2]", "z = '''[q]\n=\n'''", "# c = 1", 'w = "\\"] = "', "", "[f.g]"]
        ),
        max_size=12,
    )
)
def test_lines_of_keys_are_where_they_stand(parts):
    text = "\n".join(parts)
    try:
        file = TomlFile("F", text)
    except UsageError:
        return
    lines = text.split("\n")
    for place, line in file._lines.items():
        last = next(p for p in reversed(place) if isinstance(p, str))
        assert last in lines[line - 1]


# -- command --------------------------------------------------------------------------------------------------


def test_config_check(tmp_path, capsys, monkeypatch):
    for name in [n for n in os.environ if n.startswith("MICRORISK_")]:
        monkeypatch.delenv(name)
    path = write(tmp_path, FILE)
    monkeypatch.setenv("MICRORISK_MONITOR__TOKEN", "hunter2")
    assert main(["config", "check", "--config", str(path), "--json", "--set", "monitor.scored=7"]) == 0
    said = capsys.readouterr().out
    assert "hunter2" not in said
    found = json.loads(said)
    assert found["values"]["monitor.port"] == {"value": 9000, "origin": f"{path}:4"}
    assert found["values"]["monitor.scored"] == {"value": 7, "origin": "flag"}
    assert found["values"]["monitor.token"]["value"] == "***"
    assert [f["name"] for f in found["feeds"]] == ["nasdaq", "coinbase"]
    assert main(["config", "check", "--config", str(path)]) == 0
    assert "hunter2" not in capsys.readouterr().out
    assert main(["config", "check", "--set", "monitor.prt=1", "--json"]) == 2
    told = capsys.readouterr()
    assert "did you mean port" in told.err
    assert json.loads(told.out)["exit"] == 2


def test_sets():
    assert parse_sets(["a.b=c=d", "x.y="]) == {"a.b": "c=d", "x.y": ""}
    for wrong in (["a=b"], ["a.b"], ["a.b=1", "a.b=2"]):
        with pytest.raises(UsageError):
            parse_sets(wrong)


def test_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example.org")))
