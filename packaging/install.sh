#!/bin/sh
# Installs tether for this user: programs, completions, and the user service (started at the first use of its socket).
# With --system, for the whole machine: programs in /usr/local, system units, the users tether and tether-cloud.
#
#   packaging/install.sh                       into ~/.local
#   PREFIX=/opt/tether packaging/install.sh    elsewhere
#   sudo packaging/install.sh --system
#   BUILD=target/debug packaging/install.sh    another build than target/release
#
# Safe to run again: an installed version is replaced, settings, models and dialogues stay.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/places.sh"
build=${BUILD:-$here/../target/release}

say() { printf '%s\n' "$*"; }
fail() { say "install.sh: $*" >&2; exit 1; }

# Over a running program by rename, never by writing into it.
put() {
    mkdir -p "$(dirname "$3")"
    install -m "$1" "$2" "$3.new"
    mv -f "$3.new" "$3"
}

put_unit() {
    sed "s|@BINDIR@|$bindir|g" "$1" > "$work/unit"
    put 0644 "$work/unit" "$unitdir/$(basename "$1")"
}

[ -x "$build/tether" ] || fail "no program in $build: run \`make install\`, or \`cargo build --release\` first"
if [ "$scope" = system ] && [ "$(id -u)" != 0 ]; then fail "--system needs root: sudo packaging/install.sh --system"; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for program in tether tether-cloud; do
    if [ -x "$build/$program" ]; then put 0755 "$build/$program" "$bindir/$program"; fi
done
for shell in bash zsh fish; do
    "$bindir/tether" completions "$shell" > "$work/completions"
    put 0644 "$work/completions" "$(completions "$shell")"
done
for unit in "$here/systemd/$scope"/*; do put_unit "$unit"; done
say "programs: $bindir    units: $unitdir"

if [ "$scope" = system ]; then
    put 0644 "$here/systemd/sysusers.d/tether.conf" /usr/local/lib/sysusers.d/tether.conf
    put 0644 "$here/systemd/tmpfiles.d/tether.conf" /usr/local/lib/tmpfiles.d/tether.conf
    if command -v systemd-sysusers > /dev/null; then systemd-sysusers /usr/local/lib/sysusers.d/tether.conf; fi
    if command -v systemd-tmpfiles > /dev/null; then systemd-tmpfiles --create /usr/local/lib/tmpfiles.d/tether.conf; fi
fi

if manager_runs; then
    manager daemon-reload
    manager enable --now tether.socket
    manager try-restart tether.service
    say "tether.socket listens; the daemon starts with the first request (at boot: $systemctl enable tether.service)"
else
    say "systemd does not run here for this $scope: the units are in place for when it does."
    say "Until then run the daemon yourself: $bindir/tether serve"
fi
case ":$PATH:" in
    *":$bindir:"*) ;;
    *) say "$bindir is not in your PATH: add it to your shell's profile" ;;
esac
say "next: tether models pull smollm2-135m-instruct && tether doctor"
