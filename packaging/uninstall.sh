#!/bin/sh
# Removes what install.sh put there; takes the same PREFIX and --system. Settings, models and dialogues stay.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/places.sh"

say() { printf '%s\n' "$*"; }
if [ "$scope" = system ] && [ "$(id -u)" != 0 ]; then say "uninstall.sh: --system needs root" >&2; exit 1; fi

if manager_runs; then
    for unit in "$here/systemd/$scope"/*; do
        manager disable --now "$(basename "$unit")" 2> /dev/null || true
    done
fi
for unit in "$here/systemd/$scope"/*; do rm -f "$unitdir/$(basename "$unit")"; done
for shell in bash zsh fish; do rm -f "$(completions "$shell")"; done
rm -f "$bindir/tether" "$bindir/tether-cloud"
if [ "$scope" = system ]; then
    rm -f /usr/local/lib/sysusers.d/tether.conf /usr/local/lib/tmpfiles.d/tether.conf
fi
if manager_runs; then manager daemon-reload; fi

say "removed. These stay: settings ($config), models ($data), dialogues ($state)."
