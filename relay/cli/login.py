"""`relay login`, `logout` and `whoami`: which relay and which key the commands of this user use by themselves."""

from __future__ import annotations

import getpass
import os
import sys

import typer

from relay.cli.errors import Mistake
from relay.cli.keyring import Key, checked, find_key
from relay.cli.options import AsJson, Asked, command
from relay.cli.output import Lines, harmless, say_json
from relay.cli.secretfiles import MOST, Login, remove_login, write_login
from relay.cli.showing import about, show_key
from relay.keys.forms import Kind


def login(asked: Asked) -> None:
    """Keep a relay's address and a key for this user's commands.

    The key is asked for without showing it, or read from the file of --key-file,
    or from standard input where that is no terminal. It is tried at the relay first.

    Examples:

      relay login --relay wss://tunnels.example.com
      relay login --relay wss://tunnels.example.com --key-file master.key
    """
    relay = asked.address
    key = _given(asked, relay)
    if key.kind is Kind.VISITOR:
        raise Mistake("A visitor key lets a visitor in and is of no use to commands: give a master or operator key.")
    found = asked.client(key).get("whoami")
    path = write_login(Login(relay, key.text), os.environ)
    if asked.as_json:
        say_json({"relay": relay, "file": str(path), "key": found})
        return
    Lines().say(f"Logged in to {relay} with {about(found)}. It is kept in {harmless(path)}.")


def _given(asked: Asked, relay: str) -> Key:
    if asked.key_file is not None:
        return find_key(asked.key_file, os.environ, relay)
    if sys.stdin.isatty():
        return checked(getpass.getpass(f"Key for {relay}: "), "what was typed")
    try:
        return checked(sys.stdin.read(MOST), "standard input")
    except UnicodeError:
        raise Mistake("What standard input holds is no key: a key is one line that begins with mtk_.") from None


def logout(*, as_json: AsJson = False) -> None:
    """Forget the relay and the key that `relay login` keeps. The key itself stays valid."""
    found = remove_login(os.environ)
    if as_json:
        say_json({"logged_out": found})
        return
    Lines().say("Logged out. The key stays valid." if found else "There was no login.")


def whoami(asked: Asked) -> None:
    """Show which key the commands use, and what the relay knows of it."""
    client = asked.client()
    found = client.get("whoami")
    if asked.as_json:
        say_json({"relay": client.relay, "origin": client.key.origin, "key": found})
        return
    show_key(found, [("relay", client.relay), ("from", client.key.origin)])


def add(app: typer.Typer) -> None:
    """Adds the three to the command line."""
    command(app)(login)
    app.command()(logout)
    command(app)(whoami)
