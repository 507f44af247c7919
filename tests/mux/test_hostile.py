"""Peers that break the protocol or abuse it: the session ends with a named reason, and memory stays bounded."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.mux.outbox import CONTROL_BUSY, CONTROL_MOST
from relay.mux.errors import SessionBusy, SessionGone
from relay.wire import frames
from relay.wire.errors import AwayCode, ResetCode
from relay.wire.frames import HEADER, MAX_MESSAGE, encode, encode_going_away
from tests.mux.ends import (
    Owner,
    RawPeer,
    Side,
    against,
    f_credit,
    f_data,
    f_end,
    f_head,
    f_open,
    f_ping,
    f_reset,
    settle,
)
from tests.support.carriers import pair
from tests.support.clock import run_virtual, virtual
from tests.wire.strategies import FRAMES  # type: ignore[attr-defined,unused-ignore]
