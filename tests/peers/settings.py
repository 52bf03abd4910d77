#!/usr/bin/env python3
"""Puts the zoo into the gateway's settings and writes the daemon's: settings.py FOLDER GATEWAY_PORT MODEL."""

import json
import sys
from pathlib import Path

folder, port, model = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
made = json.loads((folder / "init.json").read_text())

zoo = (folder / "zoo.toml").read_text()
path = Path(made["gateway_config"])
head, _, _ = path.read_text().partition("[[zoo]]")
lines = [line for line in head.splitlines() if not line.startswith(("metrics", "listen"))]
own, _, backend = zoo.partition("[[zoo]]")
path.write_text(f'listen = "127.0.0.1:{port}"\n{own}' + "\n".join(lines) + "\n[[zoo]]" + backend)

(folder / "config.toml").write_text(
    f'[socket]\npath = "{folder}/tether.sock"\n[ledger]\npath = "{folder}/tether.db"\n'
    f'[model]\npath = "{model}"\n' + made["cloud_section"]
)
