"""Who is told of what: through real blocks, to a real web server and a real mail server."""

from __future__ import annotations

import json
import logging
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
from prefect.blocks.system import Secret
from pydantic import ValidationError

from configs import Settings
from flows.nightly import nightly
from flows.parameters import Watch
from tasks.nights import NightRecord
from tasks.notify import failure_message, night_message, plain, tell, tell_of_night
from tasks.registry import NoChampion

NIGHT = NightRecord(date(2024, 7, 1), "v3", "abc", {}, (), {}, 64, 60, 4, False, (), None, {}, "reports/r.html")
HOSTILE = "<script>alert(1)</script>\n<!channel> \x1b[2J\u202e{{ body }}/../../etc"


def asked(**notify: Any) -> Settings:
    return Settings.model_validate({"name": "meadow", "notify": notify})


class Received(list[Any]):
    """What a server was sent, and where it listens."""

    port = 0


@contextmanager
def serving(server: socketserver.BaseServer, received: Received) -> Iterator[Received]:
    received.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def web() -> Iterator[Received]:
    """Takes a webhook; one sent to /broken is answered with 500."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, self.headers["Authorization"], json.loads(content)))
            self.send_response(500 if self.path.startswith("/broken") else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler), received) as found:
        yield found


@pytest.fixture
def mail() -> Iterator[Received]:
    """Takes mail by SMTP (RFC 5321): sender, recipients, and the message as it came."""
    received = Received()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            sender, recipients = b"", list[bytes]()
            self.wfile.write(b"220 ready\r\n")
            while line := self.rfile.readline():
                verb = line[:4].upper()
                if verb == b"MAIL":
                    sender = line
                elif verb == b"RCPT":
                    recipients.append(line)
                elif verb == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    message = b""
                    while (line := self.rfile.readline()) not in (b".\r\n", b""):
                        message += line
                    received.append((sender.decode(), [one.decode() for one in recipients], message))
                self.wfile.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
                if verb == b"QUIT":
                    return

    with serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler), received) as found:
        yield found


def save_webhook(name: str, port: int, path: str = "/hook") -> None:
    CustomWebhookNotificationBlock(
        name=name,
        url=f"http://127.0.0.1:{port}{path}?key={{{{key}}}}",
        headers={"Authorization": "Bearer {{key}}"},
        json_data={"text": "{{subject}}\n{{body}}"},
        secrets={"key": "s3cret"},
    ).save(name, overwrite=True)


def test_a_webhook_gets_subject_and_body_with_its_secret(prefect_database: None, web: Received) -> None:
    save_webhook("web", web.port)

    sent = tell(asked(blocks=["custom-webhook/web"]), "meadow: 4 flags", "four tiles")

    assert sent == 1
    assert web == [("/hook?key=s3cret", "Bearer s3cret", {"text": "meadow: 4 flags\nfour tiles"})]


def test_a_mail_gets_there_as_plain_text(prefect_database: None, mail: Received) -> None:
    """Prefect's block for Slack takes the address of any service, mail as well; the general one cannot be saved."""
    url = f"mailto://127.0.0.1:{mail.port}?from=watch@example.org&to=duty@example.org&format=text"
    SlackWebhook(url=url).save("mail", overwrite=True)

    sent = tell(asked(blocks=["slack-webhook/mail"]), "meadow: 4 flags", "four tiles\n- one\n- two")

    assert sent == 1
    ((sender, recipients, message),) = mail
    assert "watch@example.org" in sender
    assert ["duty@example.org" in one for one in recipients] == [True]
    assert b"Subject: meadow: 4 flags" in message
    assert b"Content-Type: text/plain" in message
    assert b"text/html" not in message


def test_a_block_that_is_missing_wrong_or_fails_is_a_warning_without_its_secrets(
    prefect_database: None, web: Received, caplog: pytest.LogCaptureFixture
) -> None:
    save_webhook("good", web.port)
    save_webhook("broken", web.port, "/broken")
    save_webhook("gone", 9)  # nobody listens there
    Secret(value="no message").save("kept", overwrite=True)
    names = ["custom-webhook/missing", "secret/kept", "custom-webhook/broken", "custom-webhook/gone", "no-such-type/x"]

    with caplog.at_level(logging.WARNING):
        sent = tell(asked(blocks=[*names, "custom-webhook/good"]), "subject", "body")

    assert sent == 1, "the last one is told all the same"
    warnings = [record.getMessage() for record in caplog.records if record.name == "tasks.notify"]
    assert [name for name in names if not any(name in words for words in warnings)] == []
    assert len(warnings) == len(names)
    assert any("500" in words for words in warnings)
    assert "s3cret" not in caplog.text


def test_nobody_is_told_unless_blocks_are_named(prefect_database: None, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings()

    assert settings.notify.blocks == ()
    assert tell(settings, "subject", "body") == 0
    assert caplog.records == []


@pytest.mark.parametrize("name", ["mornings", "slack-webhook/", "a/b/c"])
def test_a_block_is_named_by_type_and_name(name: str) -> None:
    with pytest.raises(ValidationError, match="write type/name"):
        asked(blocks=[name])


@pytest.mark.parametrize(
    ("limits", "night", "words"),
    [
        ({"flags": 3}, {}, "4 flags"),
        ({"flags": 4}, {}, None),
        ({}, {}, None),
        ({}, {"quarantined": {"a/2024-07-01": "cannot be opened"}}, "1 scenes quarantined"),
        ({"quarantined": 1}, {"quarantined": {"a/2024-07-01": "cannot be opened"}}, None),
        ({"quarantined": None}, {"quarantined": {"a/2024-07-01": "cannot be opened"}}, None),
        ({}, {"drift_began": date(2024, 6, 1), "drift_reasons": ("latents moved",)}, "drift since 2024-06-01"),
        ({"drift": False}, {"drift_began": date(2024, 6, 1)}, None),
    ],
)
def test_a_night_is_told_of_when_it_passes_a_limit(limits: dict[str, Any], night: dict[str, Any], words: str | None):
    message = night_message(replace(NIGHT, **night), asked(**limits))

    assert (message and message[0]) == (words and f"meadow 2024-07-01: {words}")


def test_a_drift_is_told_of_on_the_night_it_is_declared_and_not_on_those_after_it() -> None:
    drifted = replace(NIGHT, drift_began=date(2024, 6, 1))

    assert night_message(drifted, asked(), before=NIGHT) is not None
    assert night_message(drifted, asked(), before=drifted) is None


def test_names_from_outside_are_only_names_in_a_message(prefect_database: None, web: Received) -> None:
    save_webhook("web", web.port)
    settings = asked(blocks=["custom-webhook/web"])

    tell_of_night(replace(NIGHT, quarantined={HOSTILE: HOSTILE * 50}), None, settings)

    ((_, _, content),) = web
    (line,) = [line for line in content["text"].split("\n") if line.startswith("- ")]
    assert "‹script›" in line
    assert "<" not in line
    assert "{{ body }}" in line
    assert all(character.isprintable() for character in line)
    assert len(line) < 310


def test_a_password_in_an_address_is_left_out() -> None:
    assert plain("cannot reach postgresql://me:secret@db/x") == "cannot reach postgresql://…@db/x"
    assert "secret" not in "".join(failure_message(Settings(), "nightly", "http://me:secret@host refused"))


def test_a_run_that_fails_is_told_of(prefect_database: None, web: Received, tmp_path: Path) -> None:
    save_webhook("web", web.port)
    (tmp_path / "scenes").mkdir()
    watch = {"workspace": str(tmp_path / "workspace"), "overrides": [f"source.root={tmp_path / 'scenes'}"]}
    asked_for = [*watch["overrides"], "notify.blocks=[custom-webhook/web]", "name=meadow"]

    for overrides in (asked_for, [*asked_for, "notify.failure=false"]):
        with pytest.raises(NoChampion):
            nightly(Watch(workspace=watch["workspace"], overrides=overrides))

    ((_, _, content),) = web
    assert content["text"].startswith("meadow: nightly failed\n")
    assert "tilewatch train" in content["text"]
