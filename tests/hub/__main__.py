"""`python -m tests.hub --root DIR`: serve the repositories below DIR until Ctrl-C."""

from __future__ import annotations

import argparse
import threading
from pathlib import Path

from tests.hub import contents
from tests.hub.server import Server

parser = argparse.ArgumentParser(prog="python -m tests.hub", description=__doc__)
parser.add_argument("--root", type=Path, required=True, help="holds models/ORG/NAME and datasets/ORG/NAME")
parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
parser.add_argument("--user", default="tester", help="whose the tokens are")
parser.add_argument("--org", action="append", default=[], help="an organisation that the user may write to")
parser.add_argument("--token", action="append", default=[], help="a write token of the user (hf_tester is tester's)")
parser.add_argument("--read-token", metavar="TOKEN", action="append", default=[], help="a read token of the user")
parser.add_argument("--cifar10", action="store_true", help="put a small stand-in for uoft-cs/cifar10 there first")
parser.add_argument("--weights", metavar="MODEL", action="append", default=[], help="random weights of a timm model")
options = parser.parse_args()
if options.cifar10:
    contents.put_cifar10(options.root)
for model in options.weights:
    contents.put_timm_weights(options.root, model)
with Server(options.root, options.port) as server:
    server.people.add_user(options.user, orgs=dict.fromkeys(options.org, "write"))
    for value in options.token:
        server.people.add_token(options.user, "write", value=value)
    for value in options.read_token:
        server.people.add_token(options.user, "read", value=value)
    sent = [*options.token, *options.read_token][:1]
    token = f" HF_TOKEN={sent[0]}" if sent else ""
    print(f"export HF_ENDPOINT={server.url} HF_HUB_DISABLE_XET=1{token}", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print("stopped", flush=True)
